"""A ledger in this process's memory: the default for a bare chain. It ends with the process. Imports operations."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from agentflow.budget.currency import Limits
from agentflow.budget.ledger.base import AccountState, Entry, EntryFilter, Opening
from agentflow.budget.ledger.operations import Books, Close, Erase, Find, Judge, Open, Reconcile, SetLimits
from agentflow.budget.spend import Spend
from agentflow.messages import Completion


class MemoryLedger:
    """Entries in a dict, in the order they were opened.

    Args:
        keep: how many entries stay, so that a process may run for a year. The oldest that have ended go first; an
            account goes with the last entry that names it.
    """

    def __init__(self, keep: int = 10_000) -> None:
        self.run = secrets.token_hex(8)
        self._books = Books()
        self._keep = keep
        self._named: Counter[str] = Counter()
        self._tokens = itertools.count(1)

    async def open(self, opening: Opening) -> Entry:
        """Record a hold at every account, or return the entry already recorded under its key."""
        before = self._books.entries.get(opening.key)
        entry = Open(opening, self.run, next(self._tokens)).apply(self._books, _now_ms())
        self._books.saved()
        if before is None:
            self._named.update(entry.accounts)
        if len(self._books.entries) > self._keep:
            self._forget()
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
        """End a held entry; ending it again changes nothing."""
        entry = Close(key, self.run, state, spend, completion, first_token_s).apply(self._books, _now_ms())
        assert entry is not None
        self._books.saved()
        return entry

    def judge(self, key: str, outcome: str, score: float | None) -> None:
        """Note what the checks said of an attempt."""
        Judge(key, outcome, score).apply(self._books, _now_ms())

    async def find(self, key: str, *, replay: bool = False) -> Entry | None:
        """The entry under ``key``, if there is one."""
        entry = Find(key, replay).apply(self._books, _now_ms())
        self._books.saved()
        return entry

    async def entries(self, which: EntryFilter = EntryFilter()) -> Sequence[Entry]:  # noqa: B008 - a frozen value
        """Entries in the order they were opened, without their replies."""
        return [replace(entry, completion=None) for entry in self._books.entries.values() if _matches(entry, which)]

    async def account(self, id: str) -> AccountState | None:
        """The account of this id, if it was ever used."""
        account = self._books.accounts.get(id)
        return None if account is None else AccountState(account, self._books.elapsed.get(id, 0.0))

    async def accounts(self) -> Sequence[AccountState]:
        """Every account, by id."""
        books = self._books
        return [AccountState(books.accounts[id], books.elapsed.get(id, 0.0)) for id in sorted(books.accounts)]

    async def set_limits(self, id: str, limits: Limits) -> None:
        """Give an account other limits, or make it with them."""
        SetLimits(id, limits).apply(self._books, _now_ms())

    async def reconcile(self, key: str, spend: Spend | None, note: str) -> Entry:
        """Put the true cost of an attempt in doubt in the place of its worst case."""
        return Reconcile(key, spend, note).apply(self._books, _now_ms())

    async def recover(self) -> int:
        """Nothing: no other process ever wrote here."""
        return 0

    async def take_over(self, job: str, run: str) -> int:
        """Nothing: no other process ever wrote here."""
        return 0

    async def erase(self, job: str) -> int:
        """Drop the replies kept for a job."""
        erased = Erase(tuple(e.key for e in await self.entries(EntryFilter(job=job)))).apply(self._books, 0)
        self._books.saved()
        return erased

    async def aclose(self) -> None:
        """Nothing is open."""

    def _forget(self) -> None:
        """Drop the oldest entries that have ended, and accounts that no entry names any more."""
        books = self._books
        old = (key for key, entry in books.entries.items() if entry.state != "held")
        for key in tuple(itertools.islice(old, len(books.entries) - self._keep)):
            for id in books.entries.pop(key).accounts:
                self._named[id] -= 1
                if not self._named[id]:
                    del self._named[id], books.accounts[id]
                    books.elapsed.pop(id, None)


def _matches(entry: Entry, which: EntryFilter) -> bool:
    labels = entry.labels
    return (
        which.tenant in (None, labels.tenant)
        and which.job in (None, labels.job)
        and which.chain in (None, labels.chain)
        and which.agent in (None, labels.agent)
        and which.model in (None, labels.model)
        and which.state in (None, entry.state)
        and (which.since_ms is None or entry.opened_ms >= which.since_ms)
        and (which.until_ms is None or entry.opened_ms < which.until_ms)
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
