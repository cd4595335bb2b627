"""Account: the counters of one budget at one node, and the arithmetic that never promises twice. Imports currency.

The meter keeps accounts in memory, a durable ledger keeps them in rows: both admit and settle by this file alone.
Amounts are ``currency.Amounts``: five integers in the order of ``currency.COUNTED``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Final

from agentflow.budget.currency import COUNTED, NOTHING, Amounts, Currency, Limits

UNLIMITED: Final[Limits] = (None, None, None, None, None)


class Account:
    """What one budget allows, has promised and has spent, in every counted currency.

    A hold is admitted only into ``room``: the limit less what is spent, held, granted to children and kept for a
    landing. So ``spent + held`` never passes the limit unless a reply costs more than was held for it. The room of a
    currency without a limit is infinite.

    Args:
        id: what ledgers know it by: a node's path, and its period where the budget is for one.
        limits: the most that may be spent of each counted currency; None is no limit.
        landing: share [0 to 1) of every limit that only a final hold may use.
        warn_at: share of a limit whose spending raises an alarm, once.
    """

    __slots__ = (
        "alarms",
        "closed",
        "granted",
        "held",
        "id",
        "landing",
        "limits",
        "overruns",
        "room",
        "spent",
        "warn_at",
    )

    def __init__(self, id: str, limits: Limits = UNLIMITED, *, landing: float = 0.0, warn_at: float = 0.8) -> None:
        self.id = id
        self.held: list[int] = list(NOTHING)
        self.spent: list[int] = list(NOTHING)
        self.granted: list[int] = list(NOTHING)
        self.room: list[float] = [math.inf] * len(COUNTED)
        self.overruns = 0
        self.set_limits(limits, landing=landing, warn_at=warn_at)

    def set_limits(self, limits: Limits, *, landing: float = 0.0, warn_at: float = 0.8) -> None:
        """Give it other limits; what is spent, held and granted stays as it is. A closed account opens again."""
        self.limits: Limits = limits
        self.landing = landing
        self.warn_at = warn_at
        self.closed = ""
        alarms = [(place, math.ceil(limit * warn_at)) for place, limit in enumerate(limits) if limit is not None]
        self.alarms: list[tuple[int, int]] = [alarm for alarm in alarms if self.spent[alarm[0]] < alarm[1]]
        self._recount()

    def admits(self, asked: Amounts) -> bool:
        """Whether all of ``asked`` fits."""
        return not self.closed and fits_in(asked, self.room)

    def lacks(self, asked: Amounts, *, final: bool = False, granted: Collection[int] = ()) -> int | None:
        """The place of the first currency that does not fit. At those ``granted`` to a child its grant is used."""
        for place, amount in enumerate(asked):
            if amount > self.available(place, final=final, granted=place in granted):
                return place
        return None

    def available(self, place: int, *, final: bool = False, granted: bool = False) -> float:
        """What is left of the currency at this place.

        Args:
            place: of the currency.
            final: count what is kept for a landing too.
            granted: for a child that it was granted to: all that is neither spent nor held.
        """
        limit = self.limits[place]
        if limit is None:
            return math.inf
        if granted:
            return limit - self.spent[place] - self.held[place]
        return self.room[place] + (limit - self._usable(limit) if final else 0)

    def reserve(self, asked: Amounts) -> None:
        """Hold ``asked``."""
        tokens, nano_usd, microjoules, micrograms, calls = asked
        held, room = self.held, self.room
        held[0] += tokens
        held[1] += nano_usd
        held[2] += microjoules
        held[3] += micrograms
        held[4] += calls
        room[0] -= tokens
        room[1] -= nano_usd
        room[2] -= microjoules
        room[3] -= micrograms
        room[4] -= calls

    def settle(self, asked: Amounts, used: Amounts) -> None:
        """Replace what was held by what was used, in full."""
        tokens, nano_usd, microjoules, micrograms, calls = used
        spent = self.spent
        spent[0] += tokens
        spent[1] += nano_usd
        spent[2] += microjoules
        spent[3] += micrograms
        spent[4] += calls
        held_tokens, held_usd, held_joules, held_grams, held_calls = asked
        held = self.held
        held[0] -= held_tokens
        held[1] -= held_usd
        held[2] -= held_joules
        held[3] -= held_grams
        held[4] -= held_calls
        room = self.room
        room[0] += held_tokens - tokens
        room[1] += held_usd - nano_usd
        room[2] += held_joules - microjoules
        room[3] += held_grams - micrograms
        room[4] += held_calls - calls

    def grant(self, place: int, amount: int) -> None:
        """Set ``amount`` of one currency aside for a child; a negative amount flows back."""
        self.granted[place] += amount
        self.room[place] -= amount

    def spent_at_least(self, amounts: Sequence[int]) -> None:
        """Count what others are known to have spent of it; what is known here already is not counted twice."""
        self.spent = [max(here, known) for here, known in zip(self.spent, amounts, strict=True)]
        self._recount()

    def uncommitted(self, place: int) -> int:
        """What of a limited currency is neither spent nor held, and so still promised to whoever it was granted."""
        limit = self.limits[place]
        return 0 if limit is None else max(limit - self.spent[place] - self.held[place], 0)

    @property
    def unspent(self) -> tuple[float, ...]:
        """What is not spent yet of each currency, held or not; infinite without a limit."""
        return tuple(
            math.inf if limit is None else limit - spent for limit, spent in zip(self.limits, self.spent, strict=True)
        )

    def rang(self) -> list[Currency]:
        """Currencies whose spending has passed the warning share since this was last asked."""
        if not self.alarms:
            return []
        passed = [alarm for alarm in self.alarms if self.spent[alarm[0]] >= alarm[1]]
        for alarm in passed:
            self.alarms.remove(alarm)
        return [COUNTED[index] for index, _ in passed]

    def _recount(self) -> None:
        for place, limit in enumerate(self.limits):
            committed = self.spent[place] + self.held[place] + self.granted[place]
            self.room[place] = math.inf if limit is None else self._usable(limit) - committed

    def _usable(self, limit: int) -> int:
        return limit - int(limit * self.landing)


def fits_in(amounts: Sequence[float], room: Sequence[float]) -> bool:
    """Whether no amount is more than there is room for."""
    tokens, nano_usd, microjoules, micrograms, calls = amounts
    return (
        tokens <= room[0]
        and nano_usd <= room[1]
        and microjoules <= room[2]
        and micrograms <= room[3]
        and calls <= room[4]
    )
