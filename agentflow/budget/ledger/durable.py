"""A ledger in a database: what is the same for SQLite and PostgreSQL. Imports writer, operations.

The hold is committed before ``open`` returns, the settle and the reply in one transaction. Both are queued to one
writer thread, so that tasks share commits. A run that was killed leaves its holds; ``recover`` charges them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import secrets
from collections.abc import Sequence
from typing import Final, Literal, Protocol, cast

import tenacity

from agentflow.budget.currency import Limits
from agentflow.budget.ledger.audit import Finding, audit
from agentflow.budget.ledger.base import AccountState, Entry, EntryFilter, Opening
from agentflow.budget.ledger.operations import Close, Doubt, Erase, Find, Judge, Open, Reconcile, Result, SetLimits
from agentflow.budget.ledger.writer import Store, Writer
from agentflow.budget.spend import Spend
from agentflow.errors import HeldElsewhere, LedgerError
from agentflow.messages import Completion

# How long an attempt that another process holds is waited for.
_PATIENCE_S: Final = 5.0
_ERASED_AT_ONCE: Final = 200


class Database(Store, Protocol):
    """What a database offers beyond committing. All but ``abandoned`` may be called from any thread."""

    def abandoned(self) -> tuple[tuple[str, ...], frozenset[str]]:
        """Keys of entries that runs hold which are no longer alive, and these runs. On the writer's thread."""
        ...

    def entries(self, which: EntryFilter) -> list[Entry]:
        """Entries in the order they were opened, without their replies."""
        ...

    def accounts(self, id: str | None = None) -> list[AccountState]:
        """The account of this id, or every one, by id."""
        ...

    def books(self) -> tuple[list[Entry], list[AccountState]]:
        """Every entry and every account, as they stand at one moment."""
        ...


class DurableLedger:
    """A ledger that outlives its process.

    Args:
        database: where it is kept.
        run: names this process among all that ever wrote there.
    """

    def __init__(self, database: Database, run: str) -> None:
        self.run = run
        self._database = database
        self._writer = Writer(database, f"agentflow-ledger-{run}")
        self._tokens = itertools.count(secrets.randbits(48))
        self._recovered = False
        self._owed: dict[str, Close] = {}

    async def open(self, opening: Opening) -> Entry:
        """Record a hold at every account, or return the entry already recorded under its key."""
        if not self._recovered:
            # What dead processes still hold is charged before anything new is held: in the writer's queue, ahead of it.
            self._recovered = True
            self._writer.post(self._recover)
        self._close_owed()
        operation = Open(opening, self.run, next(self._tokens))
        try:
            try:
                return cast("Entry", await self._writer.submit(operation))
            except HeldElsewhere:
                return await self._take_up(operation)
        except asyncio.CancelledError:
            # It may be committed by now, and nobody will use it.
            with contextlib.suppress(LedgerError):
                self._writer.post(Close(opening.key, self.run, "released", abandoned=operation.token))
            raise

    async def close(
        self,
        key: str,
        state: Literal["settled", "released", "in_doubt"],
        *,
        spend: Spend | None = None,
        completion: Completion | None = None,
        first_token_s: float | None = None,
    ) -> Entry:
        """End a held entry; ending it again changes nothing. Cancelled meanwhile, it is recorded all the same.

        What could not be recorded is tried again with the next opening; until then the entry stays held.
        """
        operation = Close(key, self.run, state, spend, completion, first_token_s)
        try:
            return cast("Entry", await self._writer.submit(operation))
        except LedgerError:
            self._owed[key] = operation
            raise

    def judge(self, key: str, outcome: str, score: float | None) -> None:
        """Note what the checks said of an attempt."""
        self._writer.post(Judge(key, outcome, score))

    async def find(self, key: str, *, replay: bool = False) -> Entry | None:
        """The entry under ``key``, if there is one."""
        return cast("Entry | None", await self._writer.submit(Find(key, replay)))

    async def entries(self, which: EntryFilter = EntryFilter()) -> Sequence[Entry]:  # noqa: B008 - a frozen value
        """Entries in the order they were opened, without their replies."""
        return await asyncio.to_thread(self._database.entries, which)

    async def account(self, id: str) -> AccountState | None:
        """The account of this id, if it was ever used."""
        found = await asyncio.to_thread(self._database.accounts, id)
        return found[0] if found else None

    async def accounts(self) -> Sequence[AccountState]:
        """Every account, by id."""
        return await asyncio.to_thread(self._database.accounts)

    async def set_limits(self, id: str, limits: Limits) -> None:
        """Give an account other limits, or make it with them."""
        await self._writer.submit(SetLimits(id, limits))

    async def reconcile(self, key: str, spend: Spend | None, note: str) -> Entry:
        """Put the true cost of an attempt in doubt in the place of its worst case."""
        return cast("Entry", await self._writer.submit(Reconcile(key, spend, note)))

    async def recover(self) -> int:
        """Put in doubt what processes held that are no longer alive, charged at its worst case."""
        return await self._writer.call(self._recover)

    async def take_over(self, job: str, run: str) -> int:
        """Put in doubt what one process holds for a job that it has lost to this one."""
        held = await self.entries(EntryFilter(job=job, state="held"))
        keys = tuple(entry.key for entry in held if entry.run == run and run != self.run)
        return cast("int", await self._writer.submit(Doubt(keys, frozenset({run})))) if keys else 0

    async def erase(self, job: str) -> int:
        """Drop the replies kept for a job, a few hundred at a time; what they cost stays in the books."""
        keys = [entry.key for entry in await self.entries(EntryFilter(job=job))]
        for start in range(0, len(keys), _ERASED_AT_ONCE):
            await self._writer.submit(Erase(tuple(keys[start : start + _ERASED_AT_ONCE])))
        return len(keys)

    async def audit(self) -> Sequence[Finding]:
        """Count every account again from its entries, and tell where the two differ; nothing when all is well."""
        return audit(*await asyncio.to_thread(self._database.books))

    async def aclose(self) -> None:
        """Record what is queued, and let go."""
        await self._writer.aclose()

    async def _take_up(self, operation: Open) -> Entry:
        """A process that was killed may seem alive for a moment yet, and what it holds be ours to take up."""

        async def submit() -> Entry:
            return cast("Entry", await self._writer.submit(operation))

        again = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(HeldElsewhere),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=0.5),
            stop=tenacity.stop_after_delay(_PATIENCE_S),
            before=lambda _: self._writer.post(self._recover),
            reraise=True,
        )
        return await again(submit)

    def _close_owed(self) -> None:
        """Try again to record how calls ended, where a full disk or an absent server prevented it."""
        for key, operation in tuple(self._owed.items()):
            del self._owed[key]
            self._writer.submit(operation).add_done_callback(functools.partial(self._still_owed, operation))

    def _still_owed(self, operation: Close, done: asyncio.Future[Result]) -> None:
        if not done.cancelled() and isinstance(done.exception(), LedgerError):
            self._owed[operation.key] = operation

    def _recover(self) -> int:
        keys, runs = self._database.abandoned()
        return cast("int", self._database.commit([Doubt(keys, runs)])[0]) if keys else 0
