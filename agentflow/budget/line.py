"""Line: the accounts from one node up to its root, checked and changed together. Imports account, currency.

A share of a budget was set aside at the accounts above when it was granted. Holds below it use the grant there, in
place of the room that is left for everyone; accounts that did not grant (a new day's, a limit that was given later) are
asked as always.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentflow.budget.account import Account, fits_in
from agentflow.budget.currency import COUNTED, NOTHING, Amounts, Currency, format_amount
from agentflow.errors import Refusal

_PLACES: Final = range(len(COUNTED))


@dataclass(slots=True)
class Grant:
    """What a node was given as its share: at which accounts, of which currencies (by their places in Amounts).

    Each of these accounts keeps ``granted`` equal to what the share has neither spent nor held. Empty when the node has
    no share, or has given it back.
    """

    given: dict[Account, frozenset[int]] = field(default_factory=dict[Account, frozenset[int]])

    def changed(self, before: Sequence[int], after: Sequence[int]) -> None:
        """What the share has left has changed: so has what is set aside for it."""
        for account, places in self.given.items():
            for place in places:
                account.grant(place, after[place] - before[place])


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a line: its accounts (for its whole life, and for each period), and its share."""

    accounts: tuple[Account, ...]
    grant: Grant

    def left(self) -> list[int]:
        """What its own account has neither spent nor held, by place; 0 where it has no limit."""
        own = self.accounts[0]
        return [own.uncommitted(place) for place in _PLACES]


class Line:
    """What a hold at one node touches: the node's own step first, the root's last."""

    __slots__ = ("_shares", "accounts", "steps")

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self.accounts = tuple(account for step in steps for account in step.accounts)
        self._shares = [step for step in steps if step.grant.given]

    def admits(self, asked: Amounts, *, final: bool = False) -> bool:
        """Whether every account has room for all of ``asked``."""
        if self._shares or final:
            return self._refuser(asked, final=final) is None
        for account in self.accounts:
            if not account.admits(asked):
                return False
        return True

    def refusal(self, asked: Amounts, *, final: bool = False) -> Refusal | None:
        """The first account that does not admit ``asked``, and why, in words."""
        refuser = self._refuser(asked, final=final)
        return None if refuser is None else refusal_of(*refuser, asked, final=final)

    def left(self, *, final: bool = False) -> tuple[float, ...]:
        """What is left for a hold, the least over all accounts, in the order of ``currency.COUNTED``."""
        if not (self._shares or final):
            rooms = [NOTHING if account.closed else account.room for account in self.accounts]
            return tuple(map(min, *rooms)) if len(rooms) > 1 else tuple(rooms[0])
        left = [math.inf] * len(COUNTED)
        for account in self.accounts:
            granted = self._granted(account)
            for place in _PLACES:
                available = account.available(place, final=final, granted=place in granted)
                left[place] = min(left[place], 0 if account.closed else available)
        return tuple(left)

    def reserve(self, asked: Amounts) -> None:
        """Hold ``asked`` at every account."""
        if not self._shares:
            for account in self.accounts:
                account.reserve(asked)
            return
        before = [step.left() for step in self._shares]
        for account in self.accounts:
            account.reserve(asked)
        self._tell_shares(before)

    def settle(self, asked: Amounts, used: Amounts) -> None:
        """End a hold, by the grants as they are now: what flowed back meanwhile is free to all above."""
        if not self._shares:
            for account in self.accounts:
                account.settle(asked, used)
            return
        before = [step.left() for step in self._shares]
        for account in self.accounts:
            account.settle(asked, used)
        self._tell_shares(before)

    def grant(self, share: float, places: Iterable[int], *, final: bool = False) -> tuple[Grant, Amounts]:
        """Set a part of what is left aside for a child, at every account that limits it and has not granted it yet.

        Returns:
            The grant, and its amounts.
        """
        left = self.left(final=final)
        wanted = frozenset(place for place in places if left[place] < math.inf)
        amounts = as_amounts(max(int(left[place] * share), 0) if place in wanted else 0 for place in _PLACES)
        given = {account: wanted - self._granted(account) for account in self.accounts}
        for account, granted in given.items():
            for place in granted:
                account.grant(place, amounts[place])
        return Grant(given), amounts

    def _tell_shares(self, before: Sequence[Sequence[int]]) -> None:
        for step, was in zip(self._shares, before, strict=True):
            step.grant.changed(was, step.left())

    def _granted(self, account: Account) -> frozenset[int]:
        """Places at which this account has set aside what the node may use."""
        granted: frozenset[int] = frozenset()
        for step in self._shares:
            granted |= step.grant.given.get(account, frozenset())
        return granted

    def _refuser(self, asked: Amounts, *, final: bool) -> tuple[Account, int] | None:
        for account in self.accounts:
            place = account.lacks(asked, final=final, granted=self._granted(account))
            if account.closed or place is not None:
                return account, place or 0
        return None


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
