"""What a configured cascade learned from feedback is what it then does."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentflow import Flow
from agentflow.cascade.calibration import Calibration
from agentflow.cascade.checks import token_confidence
from agentflow.cascade.outcomes import Outcome, OutcomeFile, TriedRung, labelled
from agentflow.cascade.routing.drift import Guarded
from agentflow.cascade.routing.router import Skipping, question_features
from agentflow.config import Settings
from tests.servers.openai_server import ScriptedServer

USAGE = {"prompt_tokens": 10, "completion_tokens": 5}


def settings(server: ScriptedServer, large: float = 10, **cascade: Any) -> Settings:
    model = {"backend": "openai", "base_url": server.url, "logprobs": True, "energy": {"kind": "cpu"}, "retries": 0}
    prices = {"small": {"input": 0.1, "output": 0.1}, "large": {"input": large, "output": large}}
    models = {name: {**model, "price": price} for name, price in prices.items()}
    return Settings.model_validate(
        {"models": models, "cascades": {"default": {"rungs": ["small", "large"], **cascade}}}
    )


def outcomes(path: Path, good: float, count: int = 300) -> None:
    """Questions that both rungs answered: the small one is right as often as ``good`` says, whatever it claims."""
    file, chance = OutcomeFile(path), random.Random(1)
    for _ in range(count):
        right = chance.random() < good
        small = TriedRung(rung="small", signal=0.9 + 0.05 * chance.random(), answer="a" if right else "b", score=right)
        large = TriedRung(rung="large", signal=0.95, answer="a", score=1.0)
        file.add(
            Outcome(
                at=datetime.now(UTC), cascade="default", task="ask", served="large", score=1.0, tried=(small, large)
            )
        )


async def test_a_calibrated_confidence_sends_a_boasting_rung_up(here: Path, scripted_server: ScriptedServer) -> None:
    path = Path(".agentflow/outcomes.jsonl")
    outcomes(path, good=0.3)
    scripted_server.script(
        {
            "small": [{"text": "sure", "logprobs": [-0.05], "usage": USAGE}],
            "large": [{"text": "right", "logprobs": [-0.05], "usage": USAGE}],
        }
    )
    async with Flow(settings(scripted_server)) as flow, flow.chain("before") as chain:
        reply = await chain.call("Q?", name="ask", checks=(token_confidence,))
        assert (reply.rung, reply.confidence) == ("small", pytest.approx(0.951, abs=0.001))
    Calibration.learn(labelled(OutcomeFile(path).read())).save(Path(".agentflow/calibration.json"))
    async with Flow(settings(scripted_server)) as flow, flow.chain("after") as chain:
        reply = await chain.call("Q?", name="ask", checks=(token_confidence,))
        assert reply.rung == "large"
        kept = reply.attempts[0]
        assert (kept.outcome, kept.signal) == ("kept", pytest.approx(0.951, abs=0.001))
        assert kept.confidence == pytest.approx(0.3, abs=0.1)
        other = await chain.call("Q?", name="another", checks=(token_confidence,))
        assert other.rung == "small", "what was learned of one task says nothing of another"


@pytest.mark.parametrize(
    ("good", "worth", "served"), [(0.3, 1.0, "large"), (0.3, 0.00001, "small"), (0.99, 0.001, "small")]
)
async def test_expected_utility_pays_for_what_is_worth_it(
    here: Path, scripted_server: ScriptedServer, good: float, worth: float, served: str
) -> None:
    outcomes(Path(".agentflow/outcomes.jsonl"), good)
    scripted_server.script(
        {
            "small": [{"text": "sure", "logprobs": [-0.08], "usage": USAGE}],
            "large": [{"text": "right", "logprobs": [-0.05], "usage": USAGE}],
        }
    )
    asked = settings(scripted_server, policy="utility", good_usd=worth)
    async with Flow(asked) as flow, flow.chain("chain") as chain:
        assert isinstance(chain.cascade.policy.routing, Guarded)
        reply = await chain.call("Q?", name="ask", checks=(token_confidence,))
        assert reply.rung == served


async def test_without_outcomes_the_fixed_order_decides_and_says_so(
    here: Path, scripted_server: ScriptedServer
) -> None:
    scripted_server.script(
        {
            "small": [{"text": "unsure", "logprobs": [-2.0], "usage": USAGE}],
            "large": [{"text": "right", "logprobs": [-0.05], "usage": USAGE}],
        }
    )
    async with Flow(settings(scripted_server, policy="utility")) as flow, flow.chain("chain") as chain:
        reply = await chain.call("Q?", checks=(token_confidence,))
        assert reply.rung == "large"
        assert reply.attempts[0].reason.endswith("(nothing is learned of this yet: fixed order)")


async def test_feedback_of_a_flow_is_kept_where_the_configuration_says(
    here: Path, scripted_server: ScriptedServer
) -> None:
    scripted_server.script({"small": [{"text": "a", "logprobs": [-0.01], "usage": USAGE}]})
    async with Flow(settings(scripted_server)) as flow, flow.chain("chain") as chain:
        await chain.call("Q?", name="ask")
        chain.feedback(0.8)
    (outcome,) = OutcomeFile(Path(".agentflow/outcomes.jsonl")).read()
    assert (outcome.task, outcome.served, outcome.score) == ("ask", "small", 0.8)


async def test_a_router_skips_what_would_not_do_and_stops_when_the_questions_change(
    here: Path, scripted_server: ScriptedServer
) -> None:
    """The small model can do short sums and no long ones; then, without notice, it can do neither."""
    file = OutcomeFile(Path(".agentflow/outcomes.jsonl"))
    questions = ["3+4", "2+9", "What does 123456789 plus 987654321 plus 555555555 come to, in words?"]
    for number in range(300):
        question = questions[number % 3]
        small = TriedRung(rung="small", score=float(len(question) < 10))
        file.add(
            Outcome(
                at=datetime.now(UTC), cascade="default", task="ask", served="small", score=small.score or 0.0,
                tried=(small,), features=question_features(question),
            )
        )  # fmt: skip
    unsure, sure = {"text": "?", "logprobs": [-3.0], "usage": USAGE}, {"text": "7", "logprobs": [-0.01], "usage": USAGE}
    asked = settings(scripted_server, large=1, router="logistic")
    async with Flow(asked) as flow, flow.chain("chain") as chain:
        routing = chain.cascade.policy.routing
        assert isinstance(routing, Skipping)

        async def rungs(question: str, small: dict[str, Any]) -> list[str]:
            scripted_server.script({"small": [small], "large": [sure]})
            return [a.rung for a in (await chain.call(question, name="ask", checks=(token_confidence,))).attempts]

        assert await rungs(questions[2], unsure) == ["small", "large"], "nothing is skipped before it has proved itself"
        for number in range(60):
            await rungs(questions[number % 3], sure if number % 3 < 2 else unsure)
        assert routing.watch.trusted
        assert await rungs(questions[2], unsure) == ["large"]
        assert await rungs(questions[0], sure) == ["small"]
        for number in range(60):
            await rungs(questions[number % 2], unsure)
        assert not routing.watch.trusted
        assert await rungs(questions[2], unsure) == ["small", "large"]
