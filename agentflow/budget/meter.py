"""Meter: the budget tree job -> chain -> agent, which holds before a call and settles after it.

A hold checks every ancestor and reserves at all of them, or at none: it is one synchronous step under the
tree's lock, so neither tasks nor threads can slip between the check and the reservation. In memory;
what must outlive the process is in ``ledger``. May import spend, budget, errors.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from agentflow.budget.budget import MICRO, Budget, Currency
from agentflow.budget.money import decimal_text, format_usd
from agentflow.budget.spend import Quote, Spend
from agentflow.energy.interval import format_joules
from agentflow.errors import BudgetExceeded, Refusal

Clock = Callable[[], float]
N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Room:
    """What is left for the next hold, the least over a node and its ancestors. None is unlimited."""

    tokens: int | None
    nano_usd: int | None
    microjoules: int | None
    seconds: float | None

    def fits(self, quote: Quote) -> bool:
        """Whether a hold of ``quote`` would be granted now."""
        return (
            (self.tokens is None or quote.tokens <= self.tokens)
            and (self.nano_usd is None or quote.nano_usd <= self.nano_usd)
            and (self.microjoules is None or quote.microjoules <= self.microjoules)
            and (self.seconds is None or quote.seconds <= self.seconds)
        )


@dataclass(frozen=True, slots=True)
class MeterStatistics:
    """A snapshot of one node: what it spent, what it holds, and how its holds ended."""

    path: str
    budget: Budget
    spent: Spend
    held_tokens: int
    held_nano_usd: int
    held_microjoules: int
    open_holds: int
    refused: int
    overruns: int


class Meter:
    """One node of the budget tree.

    Args:
        name: what the node is called in reports; its path is ``parent/name``.
        budget: its own limits; the limits of its ancestors hold as well.
        clock: a monotonic clock in seconds, for tests.

    Example:
        >>> job = Meter("job", Budget(tokens=1_000))
        >>> with job.child("chain").hold(Quote(tokens=600)) as hold:
        ...     hold.settle(Spend(calls=1))
        >>> job.room().tokens
        1000
    """

    def __init__(
        self,
        name: str,
        budget: Budget | None = None,
        *,
        parent: Meter | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self.budget = budget or Budget()
        self.parent = parent
        self.path: str = name if parent is None else f"{parent.path}/{name}"
        self.children: list[Meter] = []
        self._lock: threading.RLock = threading.RLock() if parent is None else parent._lock
        self._clock: Clock = clock if parent is None else parent._clock
        self._opened = self._clock()
        self._closed: float | None = None
        self._spent = Spend()
        self._spent_microjoules = 0
        self._held_tokens = self._held_nano_usd = self._held_microjoules = 0
        self._holds = self._refused = self._overruns = 0

    def child(self, name: str, budget: Budget | None = None, *, share: float | None = None) -> Meter:
        """Open a node below this one.

        Args:
            name: its name; the path must not repeat among open siblings, or reports become ambiguous.
            budget: limits of its own.
            share: when no ``budget`` is given, the part (0 to 1] of this node's limits that it may use.
        """
        if budget is None and share is not None:
            budget = self.budget.share(share)
        node = Meter(name, budget, parent=self)
        with self._lock:
            self.children.append(node)
        return node

    def hold(self, quote: Quote) -> Hold:
        """Reserve ``quote`` at this node and every ancestor, or nowhere.

        Returns:
            A hold, which must be settled or released; leaving it as a context manager releases it if it is
            still open.

        Raises:
            BudgetExceeded: a node lacks room. Nothing is reserved.
        """
        with self._lock:
            for node in self._lineage():
                refusal = node._refusal(quote)
                if refusal is not None:
                    node._refused += 1
                    raise BudgetExceeded(refusal)
            for node in self._lineage():
                node._reserve(quote, 1)
        return Hold(self, quote)

    def room(self) -> Room:
        """What is left for the next hold, the least over this node and its ancestors."""
        with self._lock:
            rooms = [node._own_room() for node in self._lineage()]
        return Room(
            _least(room.tokens for room in rooms),
            _least(room.nano_usd for room in rooms),
            _least(room.microjoules for room in rooms),
            _least(room.seconds for room in rooms),
        )

    @property
    def spent(self) -> Spend:
        """What this node and all below it have spent; ``seconds`` is this node's own elapsed wall clock."""
        with self._lock:
            return self._spent.lasting(self.elapsed)

    @property
    def elapsed(self) -> float:
        """Seconds since the node opened, until it was closed."""
        return (self._clock() if self._closed is None else self._closed) - self._opened

    def close(self) -> None:
        """Stop the node's clock. Closing twice changes nothing."""
        if self._closed is None:
            self._closed = self._clock()

    def statistics(self) -> MeterStatistics:
        """A snapshot of this node."""
        with self._lock:
            return MeterStatistics(
                self.path, self.budget, self.spent, self._held_tokens, self._held_nano_usd,
                self._held_microjoules, self._holds, self._refused, self._overruns,
            )  # fmt: skip

    def walk(self) -> Iterator[Meter]:
        """This node and all below it, parents first."""
        yield self
        for child in tuple(self.children):
            yield from child.walk()

    def _lineage(self) -> Iterator[Meter]:
        node: Meter | None = self
        while node is not None:
            yield node
            node = node.parent

    def _own_room(self) -> Room:
        tokens, nano_usd, micro = self.budget.tokens, self.budget.nano_usd, self.budget.microjoules
        return Room(
            None if tokens is None else max(0, tokens - self._spent.tokens - self._held_tokens),
            None if nano_usd is None else max(0, nano_usd - self._spent.nano_usd - self._held_nano_usd),
            None if micro is None else max(0, micro - self._spent_microjoules - self._held_microjoules),
            None if self.budget.seconds is None else max(0.0, self.budget.seconds - self.elapsed),
        )

    def _refusal(self, quote: Quote) -> Refusal | None:
        room = self._own_room()
        # With its seconds gone a node grants nothing, not even a hold that asks for no time.
        late = room.seconds is not None and (quote.seconds > room.seconds or room.seconds <= 0.0)
        if late:
            return self._refuse("seconds", self.elapsed, 0.0, quote.seconds)
        if room.tokens is not None and quote.tokens > room.tokens:
            return self._refuse("tokens", self._spent.tokens, self._held_tokens, quote.tokens)
        if room.nano_usd is not None and quote.nano_usd > room.nano_usd:
            return self._refuse("usd", self._spent.nano_usd, self._held_nano_usd, quote.nano_usd)
        if room.microjoules is not None and quote.microjoules > room.microjoules:
            return self._refuse("joules", self._spent_microjoules, self._held_microjoules, quote.microjoules)
        return None

    def _refuse(self, currency: Currency, spent: float, held: float, asked: float) -> Refusal:
        limits = {
            "tokens": self.budget.tokens,
            "usd": self.budget.nano_usd,
            "joules": self.budget.microjoules,
            "seconds": self.budget.seconds,
        }
        amounts = (limits[currency] or 0, spent, held, asked)
        limit, spent_text, held_text, asked_text = (format_amount(currency, amount) for amount in amounts)
        return Refusal(currency, f"'{self.path}'", limit, spent_text, held_text, asked_text)

    def _reserve(self, quote: Quote, sign: int) -> None:
        self._held_tokens += sign * quote.tokens
        self._held_nano_usd += sign * quote.nano_usd
        self._held_microjoules += sign * quote.microjoules
        self._holds += sign

    def _charge(self, quote: Quote, spend: Spend) -> None:
        self._spent += spend
        self._spent_microjoules += spend.microjoules
        over = (
            spend.tokens > quote.tokens
            or spend.nano_usd > quote.nano_usd
            or spend.microjoules > quote.microjoules
        )  # fmt: skip
        self._overruns += over


class Hold:
    """A reservation at a node and all its ancestors, until it is settled or released.

    Ending it a second time changes nothing, so a ``finally`` may always release.
    """

    __slots__ = ("_node", "_open", "quote")

    def __init__(self, node: Meter, quote: Quote) -> None:
        self._node = node
        self._open = True
        self.quote = quote

    def settle(self, spend: Spend) -> None:
        """Replace the reservation by what was really used, in full, even when that is more than was held."""
        self._end(spend)

    def release(self) -> None:
        """Give the reservation back: nothing was used."""
        self._end(None)

    def _end(self, spend: Spend | None) -> None:
        with self._node._lock:
            if not self._open:
                return
            self._open = False
            for node in self._node._lineage():
                node._reserve(self.quote, -1)
                if spend is not None:
                    node._charge(self.quote, spend)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def format_amount(currency: Currency, amount: float) -> str:
    """An amount as the meter counts it (nano-dollars, microjoules, tokens, seconds), for people."""
    match currency:
        case "usd":
            return format_usd(int(amount))
        case "joules":
            return format_joules(amount / MICRO)
        case "tokens":
            return f"{int(amount):,} tokens"
        case "seconds":
            return f"{amount:.3g} s"


def amount_text(currency: Currency, amount: float) -> str:
    """The same amount as a plain number in the currency's own unit, for machines."""
    match currency:
        case "usd":
            return decimal_text(int(amount))
        case "joules":
            return f"{amount / MICRO:.6g}"
        case "tokens":
            return str(int(amount))
        case "seconds":
            return f"{amount:.3f}"


def _least(amounts: Iterable[N | None]) -> N | None:
    known = [amount for amount in amounts if amount is not None]
    return min(known, default=None)
