"""Gate: the ledger as one job of a worker sees it. Nothing new is sent once the worker may be taken for dead, or ends.

Imports the ledger's protocol. Every paid call passes ``open`` before it leaves, so this is where a worker that slept
through its lease is held back, and where one that ends lets running calls finish but no new ones begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Literal

from agentflow.budget.currency import Limits
from agentflow.budget.ledger import AccountState, Entry, EntryFilter, Ledger, Opening
from agentflow.budget.spend import Spend
from agentflow.messages import Completion

# How often a call looks again whether its worker has its lease back.
_ASK_AGAIN_S: Final = 0.05


class Passage:
    """Whether calls may leave: shared by all jobs of a worker. ``under_way`` counts those that have left."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.under_way = 0

    @property
    def holds(self) -> bool:
        """Whether the worker has its lease."""
        return self._holds()

    def shut(self) -> None:
        """Let no new call leave: those who try wait until they are cancelled."""
        self._open.clear()

    async def idle(self) -> None:
        """Wait until no call is under way."""
        await self._idle.wait()

    async def enter(self) -> None:
        """Wait for leave. A job that is somewhere else by now is cancelled in here."""
        await self._open.wait()
        while not self._holds():
            await asyncio.sleep(_ASK_AGAIN_S)
            await self._open.wait()

    def count(self, change: int) -> None:
        """A call has left, or has ended."""
        self.under_way += change
        if self.under_way:
            self._idle.clear()
        else:
            self._idle.set()


class GatedLedger:
    """A ledger behind a passage.

    Args:
        ledger: which records.
        passage: of the worker.
        pass_out: waits until a call of a rung of this kind may leave the job; never returns once the job has to end.
        tried_again_ms: calls that failed before then are made again instead of being known to fail.
        recorded: keys of the job's entries. What is not among them was made by no earlier run, and is not looked for.
    """

    def __init__(
        self,
        ledger: Ledger,
        passage: Passage,
        pass_out: Callable[[str], Awaitable[None]],
        tried_again_ms: int = 0,
        recorded: Iterable[str] = (),
    ) -> None:
        self._ledger = ledger
        self._passage = passage
        self._pass_out = pass_out
        self._tried_again_ms = tried_again_ms
        self._recorded = set(recorded)
        self._mine: set[str] = set()

    @property
    def run(self) -> str:
        """Names this process."""
        return self._ledger.run

    async def open(self, opening: Opening) -> Entry:
        """Record a hold, if calls may leave."""
        while True:
            await self._pass_out(opening.labels.kind)
            await self._passage.enter()
            self._recorded.add(opening.key)
            entry = await self._ledger.open(opening)
            if entry.state != "held" or self._passage.holds:
                break
            # The worker slept while this was written: the call has not left, and must not.
            await self._ledger.close(entry.key, "released")
        if entry.state == "held" and entry.key not in self._mine:
            self._mine.add(entry.key)
            self._passage.count(1)
        return entry

    async def close(
        self,
        key: str,
        state: Literal["settled", "released", "in_doubt"],
        *,
        spend: Spend | None = None,
        completion: Completion | None = None,
        first_token_s: float | None = None,
    ) -> Entry:
        """End a held entry."""
        try:
            return await self._ledger.close(key, state, spend=spend, completion=completion, first_token_s=first_token_s)
        finally:
            if key in self._mine:
                self._mine.discard(key)
                self._passage.count(-1)

    async def find(self, key: str, *, replay: bool = False) -> Entry | None:
        """The entry under ``key``; one that failed before the job was tried again says so no longer."""
        if key not in self._recorded:
            return None
        entry = await self._ledger.find(key, replay=replay)
        if entry is None or entry.outcome != "failed" or (entry.closed_ms or 0) >= self._tried_again_ms:
            return entry
        return replace(entry, outcome="")

    def judge(self, key: str, outcome: str, score: float | None) -> None:
        """Note what the checks said."""
        self._ledger.judge(key, outcome, score)

    async def entries(self, which: EntryFilter = EntryFilter()) -> Sequence[Entry]:  # noqa: B008 - a frozen value
        """Entries in the order they were opened."""
        return await self._ledger.entries(which)

    async def account(self, id: str) -> AccountState | None:
        """One account."""
        return await self._ledger.account(id)

    async def accounts(self) -> Sequence[AccountState]:
        """Every account."""
        return await self._ledger.accounts()

    async def set_limits(self, id: str, limits: Limits) -> None:
        """Give an account other limits."""
        await self._ledger.set_limits(id, limits)

    async def reconcile(self, key: str, spend: Spend | None, note: str) -> Entry:
        """Put a true cost in."""
        return await self._ledger.reconcile(key, spend, note)

    async def recover(self) -> int:
        """Put in doubt what dead processes held."""
        return await self._ledger.recover()

    async def take_over(self, job: str, run: str) -> int:
        """Put in doubt what a process holds that has lost the job."""
        return await self._ledger.take_over(job, run)

    async def erase(self, job: str) -> int:
        """Drop the replies of a job."""
        return await self._ledger.erase(job)

    async def aclose(self) -> None:
        """Nothing: the ledger is its worker's."""
