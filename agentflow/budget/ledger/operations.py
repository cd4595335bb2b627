"""What each operation does to entries and accounts: pure bookkeeping, the same for every ledger. Imports base, line.

An operation checks everything before it changes anything, so that one that is refused leaves no trace in its batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from agentflow.budget.account import Account, fits_in
from agentflow.budget.currency import COUNTED, NOTHING, Amounts, Limits
from agentflow.budget.ledger.base import Entry, Opening
from agentflow.budget.line import as_amounts, closing, exceeded, refusal_of
from agentflow.budget.spend import Spend
from agentflow.errors import AgentflowError, BudgetExceeded, HeldElsewhere, UsageError
from agentflow.messages import Completion


@dataclass(slots=True)
class Books:
    """Entries and accounts that operations work on: all there are, or those that a batch touches."""

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    accounts: dict[str, Account] = field(default_factory=dict[str, Account])
    elapsed: dict[str, float] = field(default_factory=dict[str, float])
    changed: dict[str, None] = field(default_factory=dict[str, None])
    touched: dict[str, None] = field(default_factory=dict[str, None])
    # What the checks said of entries, by key; the entries themselves need not be at hand.
    judged: dict[str, tuple[str, float | None]] = field(default_factory=dict[str, tuple[str, float | None]])
    # Accounts whose limits stand in the database as they are here: of these only the counters need writing.
    standing: set[str] = field(default_factory=set[str])

    def write(self, entry: Entry) -> Entry:
        """Replace an entry, and remember that it has changed."""
        self.entries[entry.key] = entry
        self.changed[entry.key] = None
        return entry

    def account(self, id: str, limits: Limits) -> Account:
        """The account of this id, made with these limits when it is new."""
        account = self.accounts.get(id)
        if account is None:
            account = self.accounts[id] = Account(id, limits)
        return account

    def touch(self, ids: Iterable[str]) -> list[Account]:
        """The accounts of these ids, and remember that they change."""
        found = [self.accounts[id] for id in ids]
        for account in found:
            self.touched[account.id] = None
        return found

    def saved(self) -> None:
        """Nothing has changed any more."""
        self.changed.clear()
        self.touched.clear()
        self.judged.clear()


@dataclass(frozen=True, slots=True)
class Open:
    """Record a hold. ``token`` tells a repeated delivery of the same operation from a second call under its key."""

    opening: Opening
    run: str
    token: int

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the entries it touches."""
        return (self.opening.key,)

    def apply(self, books: Books, now_ms: int) -> Entry:
        """Reserve at every account, or hand back what is there.

        Raises:
            BudgetExceeded, HeldElsewhere, UsageError: as ``Ledger.open`` says.
        """
        opening = self.opening
        there = books.entries.get(opening.key)
        if there is not None and there.state != "released":
            return self._again(books, there)
        asked = opening.held.amounts
        accounts = [books.account(id, limits) for id, limits in opening.accounts]
        for account in accounts:
            if not account.admits(asked):
                raise BudgetExceeded(refusal_of(account, account.lacks(asked) or 0, asked))
        for account in accounts:
            account.reserve(asked)
            books.touched[account.id] = None
        for id, seconds in opening.clocks:
            books.elapsed[id] = max(books.elapsed.get(id, 0.0), seconds)
        ids = tuple([account.id for account in accounts])
        return books.write(
            Entry(
                opening.key, opening.node, opening.held, ids, opening.labels, "held", self.run, self.token, now_ms
            )
        )  # fmt: skip

    def _again(self, books: Books, there: Entry) -> Entry:
        if there.state != "held":
            return books.write(replace(there, replays=there.replays + 1)) if there.completion is not None else there
        if there.run != self.run:
            raise HeldElsewhere(
                f"Another process is making the call '{there.key}' now. Run a job in one process at a time."
            )
        if there.token != self.token:
            raise UsageError(f"Two calls of this process have the key '{there.key}'. Give each its own name.")
        return there


@dataclass(frozen=True, slots=True)
class Close:
    """End a held entry of this process."""

    key: str
    run: str
    state: Literal["settled", "released", "in_doubt"]
    spend: Spend | None = None
    completion: Completion | None = None
    first_token_s: float | None = None
    # The token of an opening that was given up while it was queued: there may be no such entry, or somebody else's.
    abandoned: int | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the entries it touches."""
        return (self.key,)

    def apply(self, books: Books, now_ms: int) -> Entry | None:
        """Charge the accounts and write the entry; nothing when it has ended before.

        Raises:
            UsageError: there is no such entry.
        """
        entry = books.entries.get(self.key)
        if self.abandoned is not None and (entry is None or entry.token != self.abandoned):
            return None
        if entry is None:
            raise UsageError(f"The ledger has no entry '{self.key}' to close.")
        if entry.run != self.run:
            return entry
        if entry.state == "in_doubt" and self.state != "in_doubt":
            # Put in doubt while its call was still running: what it cost is known after all.
            return books.write(self._ended(entry, recharge(books, entry, self.spend), now_ms))
        if entry.state != "held":
            return entry
        spend = None if self.state == "released" else self.spend or Spend.at_worst(entry.held)
        return books.write(self._ended(entry, charge(books, entry, spend), now_ms))

    def _ended(self, entry: Entry, spend: Spend | None, now_ms: int) -> Entry:
        # In full: this is the busiest line of a settle, and dataclasses.replace takes twice as long.
        return Entry(
            entry.key, entry.node, entry.held, entry.accounts, entry.labels, self.state, entry.run, entry.token,
            entry.opened_ms, now_ms, spend, self.first_token_s, self.completion, entry.outcome, entry.score,
            entry.replays, entry.note,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judge:
    """Note what the checks said."""

    key: str
    outcome: str
    score: float | None

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the entries it has to see: none, because every call comes this way."""
        return ()

    def apply(self, books: Books, now_ms: int) -> None:
        """Note it, and put it into the entry where that is at hand."""
        books.judged[self.key] = (self.outcome, self.score)
        entry = books.entries.get(self.key)
        if entry is not None:
            books.entries[self.key] = replace(entry, outcome=self.outcome, score=self.score)


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Put the true cost in the place of a worst case."""

    key: str
    spend: Spend | None
    note: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the entries it touches."""
        return (self.key,)

    def apply(self, books: Books, now_ms: int) -> Entry:
        """Charge the difference to the accounts.

        Raises:
            UsageError: there is no such entry, or it is not in doubt.
        """
        entry = books.entries.get(self.key)
        if entry is None:
            raise UsageError(f"The ledger has no entry '{self.key}'. List those in doubt to see their keys.")
        if entry.state == "reconciled" and entry.note == self.note and entry.spend == self._true(entry):
            return entry
        if entry.state != "in_doubt":
            raise UsageError(f"The entry '{self.key}' is {entry.state}, not in doubt: there is nothing to reconcile.")
        spend = recharge(books, entry, self._true(entry))
        return books.write(replace(entry, state="reconciled", spend=spend, note=self.note))

    def _true(self, entry: Entry) -> Spend:
        return self.spend or Spend(calls=entry.held.calls)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Put entries in doubt whose process is dead. ``keys`` are its held entries; others are left alone."""

    keys: tuple[str, ...]
    runs: Collection[str]

    def apply(self, books: Books, now_ms: int) -> int:
        """Charge each at its worst case.

        Returns:
            How many.
        """
        found = [books.entries[key] for key in self.keys if key in books.entries]
        dead = [entry for entry in found if entry.state == "held" and entry.run in self.runs]
        for entry in dead:
            spend = charge(books, entry, Spend.at_worst(entry.held))
            note = "its process ended before the call did"
            books.write(replace(entry, state="in_doubt", closed_ms=now_ms, spend=spend, note=note))
        return len(dead)


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Give an account other limits."""

    id: str
    limits: Limits

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the entries it touches: none."""
        return ()

    def apply(self, books: Books, now_ms: int) -> None:
        """Change it, or make it."""
        books.account(self.id, self.limits).set_limits(self.limits)
        books.standing.discard(self.id)
        books.touch((self.id,))


@dataclass(frozen=True, slots=True)
class Find:
    """Look an entry up, in the order of what was queued before; count a replay when its reply is to be given again."""

    key: str
    replay: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the entries it touches."""
        return (self.key,)

    def apply(self, books: Books, now_ms: int) -> Entry | None:
        """The entry, if there is one."""
        entry = books.entries.get(self.key)
        if entry is None or not self.replay or entry.completion is None:
            return entry
        return books.write(replace(entry, replays=entry.replays + 1))


@dataclass(frozen=True, slots=True)
class Erase:
    """Drop replies; what they cost stays."""

    keys: tuple[str, ...]

    def apply(self, books: Books, now_ms: int) -> int:
        """Take the replies out of their entries.

        Returns:
            How many entries there were.
        """
        found = [books.entries[key] for key in self.keys if key in books.entries]
        for entry in found:
            if entry.completion is not None:
                books.write(replace(entry, completion=None))
        return len(found)


Operation = Open | Close | Judge | Reconcile | Doubt | SetLimits | Find | Erase
Result = Entry | int | None


def touched(operation: Operation) -> tuple[str, ...]:
    """Ids of the accounts an operation names itself; those of the entries it closes come with the entries."""
    if isinstance(operation, Open):
        return tuple(id for id, _ in operation.opening.accounts)
    return (operation.id,) if isinstance(operation, SetLimits) else ()


def apply_all(operations: Iterable[Operation], books: Books, now_ms: int) -> list[Result | AgentflowError]:
    """Apply operations one after another; one that is refused leaves no trace, and its error is its result."""
    results: list[Result | AgentflowError] = []
    for operation in operations:
        try:
            results.append(operation.apply(books, now_ms))
        except AgentflowError as refused:
            results.append(refused)
    return results


def charge(books: Books, entry: Entry, spend: Spend | None) -> Spend | None:
    """Turn an entry's hold into a charge at all its accounts; None was nothing.

    Returns:
        The spend, marked when it was dearer than the hold.
    """
    asked = entry.held.amounts
    used = NOTHING if spend is None else spend.amounts
    accounts = books.touch(entry.accounts)
    for account in accounts:
        account.settle(asked, used)
    if spend is None or fits_in(used, asked):
        return spend
    for account in accounts:
        account.overruns += 1
    places = exceeded(accounts, asked, used)
    if entry.held.bound and places and accounts:
        accounts[0].closed = closing(asked, used, places)
    return spend.overrun()


def recharge(books: Books, entry: Entry, spend: Spend | None) -> Spend | None:
    """Put what an entry really cost in the place of what it was charged, at all its accounts."""
    before: Amounts = entry.spend.amounts if entry.spend is not None else NOTHING
    after: Amounts = spend.amounts if spend is not None else NOTHING
    difference = as_amounts(after[place] - before[place] for place in range(len(COUNTED)))
    for account in books.touch(entry.accounts):
        account.settle(NOTHING, difference)
    return spend
