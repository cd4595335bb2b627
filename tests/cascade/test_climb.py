"""What decides which rung is asked next is the policy's: one step at a time, or several side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agentflow.budget.ledger import Entry, MemoryLedger, Opening
from agentflow.budget.meter import Meter
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.checks import token_confidence
from agentflow.cascade.policy import Policy
from agentflow.cascade.routing.fixed import Pinned
from agentflow.cascade.routing.latency import LatencyFirst
from agentflow.cascade.routing.state import Abstain, Decision, State, Stop, Try
from agentflow.cascade.rung import CodeRung, ModelRung
from agentflow.chain import CallRecord, Chain
from agentflow.errors import CallFailed, LedgerError
from tests.cascade.test_cascade import _backends_are_closed, code, rung
from tests.servers.openai_server import ScriptedServer

__all__ = ["_backends_are_closed"]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5}


def chain(policy: Policy, *rungs: ModelRung | CodeRung, observe: Callable[[CallRecord], None] | None = None) -> Chain:
    return Chain(Meter("chain"), Cascade("test", rungs, policy), MemoryLedger(), observe)


async def test_a_pinned_rung_is_asked_and_no_other(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"large": [{"text": "from large", "usage": USAGE}]})
    it = chain(
        Policy(routing=Pinned("large")),
        code("cheap", 1.0),
        rung(scripted_server, "small"),
        rung(scripted_server, "large"),
    )
    reply = await it.call("Who?")
    assert [a.rung for a in reply.attempts] == ["large"]


async def test_side_by_side_the_first_good_reply_ends_the_others(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"slow": [{"text": "late", "gate": "never"}], "quick": [{"text": "early", "usage": USAGE}]})
    it = chain(Policy(routing=LatencyFirst(abreast=2)), rung(scripted_server, "slow"), rung(scripted_server, "quick"))
    reply = await it.call("Who?")
    assert (reply.text, reply.rung) == ("early", "quick")
    # The one that was left may have cost something: nobody can know.
    assert it.spend.in_doubt == 1
    assert [(a.rung, a.outcome) for a in reply.attempts] == [("quick", "accepted"), ("slow", "cancelled")]
    assert reply.attempts[1].reason == "another attempt replied first"
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_side_by_side_a_reply_that_is_not_good_waits_for_the_other(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        {
            "quick": [{"text": "unsure", "logprobs": [-3.0], "usage": USAGE}],
            "slow": [{"text": "sure", "logprobs": [-0.01], "gate": "later", "usage": USAGE}],
        }
    )
    it = chain(
        Policy(routing=LatencyFirst(abreast=2)),
        rung(scripted_server, "quick", logprobs=True),
        rung(scripted_server, "slow", logprobs=True),
        observe=lambda _: scripted_server.release("later"),
    )
    reply = await it.call("Who?", checks=(token_confidence,))
    assert reply.text == "sure"
    assert [(a.rung, a.outcome) for a in reply.attempts] == [("quick", "kept"), ("slow", "accepted")]


async def test_side_by_side_an_error_is_told_as_it_is(scripted_server: ScriptedServer) -> None:
    class Full(MemoryLedger):
        async def open(self, opening: Opening) -> Entry:
            raise LedgerError("The disk is full.")

    policy = Policy(routing=LatencyFirst(abreast=2))
    rungs = rung(scripted_server, "one"), rung(scripted_server, "two")
    it = Chain(Meter("chain"), Cascade("test", rungs, policy), Full())
    with pytest.raises(LedgerError, match="full"):
        await it.call("Who?")
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []
    assert it.meter.statistics().open_holds == 0


@dataclass(frozen=True)
class Prefers:
    """A policy that has one favourite, and takes any reply of it."""

    rung: int

    def choose(self, state: State) -> Decision:
        return Stop(0, "good") if state.seen else Try(self.rung, "the favourite")


@pytest.mark.parametrize("later", [Policy(accept=0.9), Policy(routing=Prefers(1)), Policy(routing=LatencyFirst())])
async def test_what_served_a_call_serves_it_in_a_repeated_run_whatever_the_policy_says_by_then(
    scripted_server: ScriptedServer, later: Policy
) -> None:
    unsure = {"text": "from small", "logprobs": [-0.4], "usage": USAGE}
    scripted_server.script({"small": [unsure], "large": [{"text": "from large", "usage": USAGE}]})
    rungs, ledger = (rung(scripted_server, "small", logprobs=True), rung(scripted_server, "large")), MemoryLedger()

    def job(policy: Policy) -> Chain:
        return Chain(Meter("job"), Cascade("test", rungs, policy), ledger)

    first = await job(Policy(accept=0.5)).call("Who?", checks=(token_confidence,))
    again = job(later)
    reply = await again.call("Who?", checks=(token_confidence,))
    assert (reply.text, reply.confidence) == (first.text, first.confidence) == ("from small", pytest.approx(0.67, 0.01))
    assert (len(scripted_server.requests()), again.spend.nano_usd) == (1, 0)


@dataclass(frozen=True)
class Gives:
    """A policy that asks once and then gives up."""

    def choose(self, state: State) -> Decision:
        return Abstain("nothing here is worth giving") if state.seen else Try(0, "to see")


async def test_a_policy_may_serve_nothing(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"text": "", "usage": USAGE}]})
    it = chain(Policy(routing=Gives(), repairs=0), rung(scripted_server, "small"))
    with pytest.raises(CallFailed, match="nothing here is worth giving"):
        await it.call("Who?")
