"""Line: the accounts from one node up to its root, checked and changed together. Imports account, room, spend.

A node that was granted a share of its parent's budget is a boundary: what was granted left the room of every account
above when it was granted, so that holds below it touch only ``held`` and ``spent`` there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agentflow.budget.account import Account, fits_in
from agentflow.budget.currency import COUNTED, NOTHING, Amounts, Currency, format_amount
from agentflow.errors import Refusal

_PLACES: Final = range(len(COUNTED))


@dataclass(slots=True)
class Grant:
    """Places of the currencies that a parent set aside for a node; none when it has no share, or has given it back."""

    places: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a line: its accounts (for its whole life, and for each period), and what it was granted."""

    accounts: tuple[Account, ...]
    grant: Grant


class Line:
    """What a hold at one node touches: the node's own step first, the root's last."""

    __slots__ = ("_shared", "accounts", "steps")

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self.accounts = tuple(account for step in steps for account in step.accounts)
        self._shared = any(step.grant.places for step in steps)

    def admits(self, asked: Amounts, *, final: bool = False) -> bool:
        """Whether every account has room for all of ``asked``."""
        if not self._shared and not final:
            for account in self.accounts:
                if not account.admits(asked):
                    return False
            return True
        return not any(
            account.closed or account.lacks(asked, final=final, granted=granted) is not None
            for account, granted in self._walk()
        )

    def refusal(self, asked: Amounts, *, final: bool = False) -> Refusal | None:
        """The first account that does not admit ``asked``, and why, in words."""
        for account, granted in self._walk():
            place = account.lacks(asked, final=final, granted=granted)
            if account.closed or place is not None:
                return refusal_of(account, place or 0, asked, final=final)
        return None

    def left(self, *, final: bool = False) -> tuple[float, ...]:
        """What is left for a hold, the least over all accounts, in the order of ``currency.COUNTED``."""
        left = [math.inf] * len(COUNTED)
        for account, granted in self._walk():
            for place in _PLACES:
                if place not in granted:
                    left[place] = min(left[place], 0 if account.closed else account.available(place, final=final))
        return tuple(left)

    def reserve(self, asked: Amounts) -> None:
        """Hold ``asked`` at every account."""
        if not self._shared:
            for account in self.accounts:
                account.reserve(asked)
            return
        for account, granted in self._walk():
            account.reserve(asked, granted)

    def settle(self, asked: Amounts, used: Amounts) -> None:
        """End a hold, by the grants as they are now: what flowed back meanwhile is free to all above."""
        if not self._shared:
            for account in self.accounts:
                account.settle(asked, used)
            return
        granted: frozenset[int] = frozenset()
        # What replies cost beyond the whole of a grant comes out of the room above it.
        beyond = NOTHING
        for step in self.steps:
            own = step.accounts[0]
            before = [max(-room, 0) for room in own.room]
            for account in step.accounts:
                account.settle(asked, used, granted)
                account.grant(beyond)
            if step.grant.places:
                after = [max(-room, 0) for room in own.room]
                beyond = as_amounts(int(after[p] - before[p]) if p in step.grant.places else beyond[p] for p in _PLACES)
            granted |= step.grant.places

    def grant(self, amounts: Amounts) -> None:
        """Set ``amounts`` aside for a child at every account that gives them; negative amounts flow back."""
        for account, granted in self._walk():
            account.grant(as_amounts(0 if place in granted else amounts[place] for place in _PLACES))

    def _walk(self) -> Iterator[tuple[Account, frozenset[int]]]:
        granted: frozenset[int] = frozenset()
        for step in self.steps:
            for account in step.accounts:
                yield account, granted
            granted |= step.grant.places


def refusal_of(account: Account, place: int, asked: Amounts, *, final: bool = False) -> Refusal:
    """Why ``account`` does not grant ``asked``: it is closed, or the currency at this place lacks room."""
    currency = COUNTED[place]
    if account.closed:
        return Refusal(currency, f"'{account.id}'", "", "", "", "", 0.0, account.closed)
    left = max(account.available(place, final=final), 0)
    return refusal(
        account.id, currency, account.limits[place] or 0, account.spent[place], account.held[place], asked[place], left
    )


def refusal(
    name: str, currency: Currency, limit: float, spent: float, held: float, asked: float, left: float
) -> Refusal:
    """A refusal from amounts in the unit the meter counts in."""
    texts = [format_amount(currency, amount) for amount in (limit, spent, held, asked)]
    return Refusal(currency, f"'{name}'", *texts, left=left)


def as_amounts(values: Iterable[int]) -> Amounts:
    """Five numbers in the order of ``currency.COUNTED``."""
    tokens, nano_usd, microjoules, micrograms, calls = values
    return (tokens, nano_usd, microjoules, micrograms, calls)


def exceeded(accounts: Iterable[Account], held: Amounts, used: Amounts) -> tuple[int, ...]:
    """Places where a reply cost more than was held, in currencies that some of the accounts limit."""
    if fits_in(used, held):
        return ()
    lines = tuple(accounts)
    return tuple(
        place for place in _PLACES if used[place] > held[place] and any(a.limits[place] is not None for a in lines)
    )


def dearer(held: Amounts, used: Amounts, places: Iterable[int]) -> str:
    """How much more than its hold a reply cost, for people."""
    return ", ".join(
        f"{format_amount(COUNTED[p], used[p])} where {format_amount(COUNTED[p], held[p])} was held" for p in places
    )


def closing(held: Amounts, used: Amounts, places: Iterable[int]) -> str:
    """Why an account is closed after an overrun, as the end of a sentence about it."""
    return f"took a reply that cost more than was held for it ({dearer(held, used, places)}), and grants no more"
