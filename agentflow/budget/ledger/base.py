"""The ledger's protocol and its entries: what every kind of ledger does, in memory or durable. Imports spend, messages.

An entry is one attempt. It is opened before the request leaves and closed with the reply, and its key never charges
twice. Next: ``operations`` (what opening and closing do to the accounts), ``memory``, ``durable``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from agentflow.budget.account import Account
from agentflow.budget.currency import Limits
from agentflow.budget.spend import Quote, Spend
from agentflow.messages import Completion

State = Literal["held", "settled", "released", "in_doubt", "reconciled"]
AccountLimits = tuple[tuple[str, Limits], ...]
# The kind of an entry whose call was answered by a reply that an earlier one was given: it cost nothing.
REUSE: Final = "reuse"


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose attempt it is, for reports. Empty is not said."""

    tenant: str = ""
    job: str = ""
    chain: str = ""
    agent: str = ""
    call: str = ""
    cascade: str = ""
    rung: str = ""
    kind: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Opening:
    """A hold to be recorded.

    Args:
        key: names the attempt: chain, call, content of the request, number. The same in a repeated run.
        node: the path of the meter's node.
        held: what is reserved.
        accounts: ids and limits of the accounts from the node up to its root. An account that is not known yet is
            made with these limits; one that is known keeps its own.
        labels: whose attempt it is.
        clocks: seconds elapsed at nodes with limited seconds, by account id.
    """

    key: str
    node: str
    held: Quote
    accounts: AccountLimits
    labels: Labels = field(default_factory=Labels)
    clocks: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt as it stands.

    ``state``: ``held`` until it ends; ``settled`` with what it cost; ``released`` when nothing was sent; ``in_doubt``
    when its cost never became known and all that was held is charged; ``reconciled`` when a person has put the true
    cost in its place. ``completion`` is the reply of a model: a repeated run gets it from here. Times are milliseconds
    since 1970, UTC. ``run`` is the process that opened it, ``replays`` how often the reply was given again.
    """

    key: str
    node: str
    held: Quote
    accounts: tuple[str, ...]
    labels: Labels
    state: State
    run: str
    token: int
    opened_ms: int
    closed_ms: int | None = None
    spend: Spend | None = None
    first_token_s: float | None = None
    completion: Completion | None = None
    outcome: str = ""
    score: float | None = None
    replays: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries: all whose labels equal those given, opened from ``since_ms`` on and before ``until_ms``."""

    tenant: str | None = None
    job: str | None = None
    chain: str | None = None
    agent: str | None = None
    model: str | None = None
    state: State | None = None
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account as the ledger has it, and the wall clock its node has used."""

    account: Account
    elapsed_s: float = 0.0


class Ledger(Protocol):
    """Records every attempt before it leaves and after it ends, and keeps the accounts they are charged to.

    All of it is safe for many tasks at once; a durable ledger also for many processes.
    """

    @property
    def run(self) -> str:
        """Names this process among all that ever opened entries here."""
        ...

    async def open(self, opening: Opening) -> Entry:
        """Record a hold at every account, or return the entry already recorded under its key.

        Returns:
            An entry that is ``held`` is new, and the attempt may leave. Any other was made by an earlier run: a
            settled one has the reply.

        Raises:
            BudgetExceeded: an account has no room, counting what other processes hold. Nothing is recorded.
            HeldElsewhere: another process is making this very attempt now, and lives.
            LedgerError: it cannot be recorded.
            UsageError: this process is making it already: two calls have one key.
        """
        ...

    async def close(
        self,
        key: str,
        state: Literal["settled", "released", "in_doubt"],
        *,
        spend: Spend | None = None,
        completion: Completion | None = None,
        first_token_s: float | None = None,
    ) -> Entry:
        """End a held entry: the spend, the reply and the accounts in one transaction.

        Ending it again changes nothing and returns what stands; but an entry that was put in doubt while its call
        was still running is settled after all.

        Raises:
            UsageError: no entry was opened under ``key``, or it is settled without a spend.
            LedgerError: it cannot be recorded. The entry stays held, and will be in doubt.
        """
        ...

    def judge(self, key: str, outcome: str, score: float | None) -> None:
        """Note what the checks said of an attempt; recorded soon, without waiting for it."""
        ...

    async def find(self, key: str, *, replay: bool = False) -> Entry | None:
        """The entry under ``key``, if there is one; with ``replay``, count that its reply is given again."""
        ...

    async def entries(self, which: EntryFilter = EntryFilter()) -> Sequence[Entry]:
        """Entries in the order they were opened, without their replies."""
        ...

    async def account(self, id: str) -> AccountState | None:
        """The account of this id, if it was ever used."""
        ...

    async def accounts(self) -> Sequence[AccountState]:
        """Every account, by id."""
        ...

    async def set_limits(self, id: str, limits: Limits) -> None:
        """Give an account other limits, or make it with them; a closing by an overrun is lifted."""
        ...

    async def reconcile(self, key: str, spend: Spend | None, note: str) -> Entry:
        """Put the true cost of an attempt in doubt in the place of its worst case.

        Args:
            key: the attempt's.
            spend: what it really cost; None when the provider never got it.
            note: where that is known from.

        Raises:
            UsageError: there is no such entry, or it is not in doubt.
        """
        ...

    async def recover(self) -> int:
        """Put in doubt what processes held that are no longer alive, charged at its worst case.

        Returns:
            How many entries.
        """
        ...

    async def take_over(self, job: str, run: str) -> int:
        """Put in doubt what one process holds for a job that it has lost to this one, although it may live.

        Its calls may still end: then they are settled after all, at what they cost.

        Args:
            job: by its label.
            run: of the process that lost it.

        Returns:
            How many entries.
        """
        ...

    async def erase(self, job: str) -> int:
        """Drop the replies kept for a job; what they cost stays in the books.

        Returns:
            How many entries the job has.
        """
        ...

    async def aclose(self) -> None:
        """Record what is queued, and let go. Closing twice changes nothing."""
        ...
