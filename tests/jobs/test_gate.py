"""The ledger behind a worker's gate: what an earlier run recorded is found, and nothing else is looked for."""

from __future__ import annotations

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import MemoryLedger, Opening
from agentflow.budget.spend import Quote, Spend
from agentflow.jobs.gate import GatedLedger, Passage
from agentflow.messages import Completion, Timings, TokenUsage

REPLY = Completion("yes", "m", TokenUsage(5, 5), Timings(1.0))
OPENING = Opening("a", "job", Quote(10), (("job", Budget(tokens=100).limits),))


async def leave(kind: str) -> None:
    """Any call may."""


async def ledger_with_a_reply() -> MemoryLedger:
    ledger = MemoryLedger()
    await ledger.open(OPENING)
    await ledger.close("a", "settled", spend=Spend(1, TokenUsage(5, 5)), completion=REPLY)
    return ledger


async def test_what_an_earlier_run_recorded_is_found() -> None:
    gated = GatedLedger(await ledger_with_a_reply(), Passage(lambda: True), leave, recorded=["a"])
    found = await gated.find("a", replay=True)
    assert found is not None and (found.completion, found.replays) == (REPLY, 1)
    assert await gated.find("b") is None


async def test_what_was_recorded_since_is_found_when_it_is_opened() -> None:
    # As by a worker that was taken for dead, and whose call ended after this run had looked.
    gated = GatedLedger(await ledger_with_a_reply(), Passage(lambda: True), leave)
    assert await gated.find("a") is None
    opened = await gated.open(OPENING)
    assert (opened.state, opened.completion) == ("settled", REPLY)
    found = await gated.find("a")
    assert found is not None and found.completion == REPLY
