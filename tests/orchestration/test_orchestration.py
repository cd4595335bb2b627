from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentflow.budget.budget import Budget
from agentflow.budget.meter import Meter
from agentflow.chain import Chain
from agentflow.config import Settings
from agentflow.errors import BudgetExceeded, ConfigError, UsageError
from agentflow.orchestration.agent import Agent
from agentflow.orchestration.library import load_agents, shipped_agents
from agentflow.orchestration.orchestrator import Orchestrator
from agentflow.orchestration.plan import Plan, Task
from agentflow.runtime import Runtime

WORKER = Agent("worker", "Works.", "You work.", budget_share=0.5)


def orchestrator(job: Meter, states: list[str] | None = None) -> Orchestrator:
    seen = [] if states is None else states
    return Orchestrator(
        Runtime(Settings()), job, lambda record: None, lambda task, state, meter: seen.append(f"{task.name} {state}")
    )


async def test_tasks_run_side_by_side_as_soon_as_what_they_need_is_there() -> None:
    both_started = asyncio.Barrier(2)

    async def meet(chain: Chain, inputs: Mapping[str, Any]) -> str:
        await asyncio.wait_for(both_started.wait(), 10)
        return chain.meter.name

    async def join(chain: Chain, inputs: Mapping[str, Any]) -> list[str]:
        return sorted(inputs.values())

    plan = Plan((Task("c", WORKER, join, ("a", "b")), Task("a", WORKER, meet), Task("b", WORKER, meet)))
    states: list[str] = []
    outcomes = await orchestrator(Meter("job"), states).run(plan)
    assert outcomes["c"].value == ["a", "b"]
    assert states[-2:] == ["c started", "c ended"]


async def test_each_task_has_a_chain_of_its_own_with_its_part_of_its_agents_share() -> None:
    job = Meter("job", Budget(tokens=1_000))

    async def look(chain: Chain, inputs: Mapping[str, Any]) -> int | None:
        return chain.meter.room().tokens

    outcomes = await orchestrator(job).run(Plan((Task("a", WORKER, look), Task("b", WORKER, look))))
    assert (outcomes["a"].value, outcomes["b"].value) == (250, 250)
    assert [child.name for child in job.children] == ["a", "b"]


async def test_a_task_that_fails_is_told_and_the_others_go_on_without_it() -> None:
    async def fail(chain: Chain, inputs: Mapping[str, Any]) -> None:
        raise UsageError("no")

    async def go_on(chain: Chain, inputs: Mapping[str, Any]) -> str:
        return f"had {sorted(inputs)}"

    states: list[str] = []
    plan = Plan((Task("bad", WORKER, fail), Task("after", WORKER, go_on, ("bad",))))
    outcomes = await orchestrator(Meter("job"), states).run(plan)
    assert isinstance(outcomes["bad"].error, UsageError)
    assert outcomes["after"].value == "had []"
    assert "bad failed" in states


async def test_a_cancelled_plan_cancels_its_tasks_and_closes_their_chains() -> None:
    job = Meter("job")
    begun = asyncio.Event()

    async def hang(chain: Chain, inputs: Mapping[str, Any]) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(orchestrator(job).run(Plan((Task("a", WORKER, hang),))))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stopped = job.children[0].elapsed
    assert job.children[0].elapsed == stopped, "the chain's clock stands still"


async def nothing(chain: Chain, inputs: Mapping[str, Any]) -> None:
    return None


@pytest.mark.parametrize(
    "tasks",
    [
        (Task("a", WORKER, nothing), Task("a", WORKER, nothing)),
        (Task("a", WORKER, nothing, ("b",)), Task("b", WORKER, nothing, ("a",))),
        (Task("a", WORKER, nothing, ("ghost",)),),
        (Task("a", WORKER, nothing, ("a",)),),
    ],
)
def test_a_plan_that_cannot_end_is_refused(tasks: tuple[Task, ...]) -> None:
    with pytest.raises(UsageError, match="plan"):
        Plan(tasks)


def test_twelve_agents_ship_each_with_instructions() -> None:
    agents = shipped_agents()
    assert set(agents) == {
        "planner", "retrieval", "synthesis", "testing", "deployment", "coding", "integration", "triage", "vision",
        "verification", "translation", "shaping",
    }  # fmt: skip
    for agent in agents.values():
        assert len(agent.instructions) > 100
        assert 0 < agent.budget_share <= 1


def test_a_user_adds_an_agent_by_adding_a_file(tmp_path: Path) -> None:
    (tmp_path / "poet.md").write_text("---\nname: poet\ndescription: Rhymes.\nbudget_share: 0.1\n---\nYou rhyme.\n")
    agent = load_agents(tmp_path)["poet"]
    assert (agent.instructions, agent.budget_share, agent.cascade) == ("You rhyme.", 0.1, "default")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("You rhyme.", "no front matter"),
        ("---\nname: [\n---\nx", "not YAML"),
        ("---\nname: poet\n---\nx", "description"),
        ("---\nname: other\ndescription: x\n---\nx", "must be the same"),
        ("---\nname: poet\ndescription: x\nbudget_share: 7\n---\nx", "budget_share"),
        ("---\nname: poet\ndescription: x\npower: all\n---\nx", "power"),
    ],
)
def test_an_agent_file_that_is_wrong_is_told_by_name(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "poet.md").write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        load_agents(tmp_path)
    assert "poet.md" in str(raised.value)


async def test_a_refused_budget_is_an_outcome_not_a_crash() -> None:
    job = Meter("job", Budget(seconds=0.000001))

    async def spend(chain: Chain, inputs: Mapping[str, Any]) -> None:
        from agentflow.budget.spend import Quote

        chain.meter.hold(Quote())

    outcomes = await orchestrator(job).run(Plan((Task("a", WORKER, spend),)))
    assert isinstance(outcomes["a"].error, BudgetExceeded)
