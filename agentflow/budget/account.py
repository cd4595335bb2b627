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

    A hold is admitted only into ``room``, the limit less what is spent, held, granted to children and kept for a
    landing; so ``spent + held`` never passes the limit unless a reply costs more than was held for it. The room of
    a currency without a limit is infinite.

    Args:
        id: what ledgers know it by: a node's path, and its period where the budget is for one.
        limits: the most that may be spent of each counted currency; None is no limit.
        landing: share [0 to 1) of every limit that only a final hold may use.
        warn_at: share of a limit whose spending raises an alarm, once.
    """

    __slots__ = ("alarms", "closed", "held", "id", "landing", "limits", "overruns", "room", "spent", "warn_at")

    def __init__(self, id: str, limits: Limits = UNLIMITED, *, landing: float = 0.0, warn_at: float = 0.8) -> None:
        self.id = id
        self.landing = landing
        self.warn_at = warn_at
        self.limits: Limits = UNLIMITED
        self.held: list[int] = list(NOTHING)
        self.spent: list[int] = list(NOTHING)
        self.room: list[float] = [math.inf] * len(COUNTED)
        self.closed = ""
        self.overruns = 0
        self.alarms: list[tuple[int, int]] = []
        self.set_limits(limits)

    def set_limits(self, limits: Limits) -> None:
        """Give it other limits; what is spent, held and granted stays as it is. A closed account opens again."""
        for index, (limit, old) in enumerate(zip(limits, self.limits, strict=True)):
            if limit is None:
                self.room[index] = math.inf
            elif old is None:
                self.room[index] = self._usable(limit) - self.spent[index] - self.held[index]
            else:
                self.room[index] += self._usable(limit) - self._usable(old)
        self.limits = limits
        self.closed = ""
        alarms = [(index, math.ceil(limit * self.warn_at)) for index, limit in enumerate(limits) if limit is not None]
        self.alarms = [(index, threshold) for index, threshold in alarms if self.spent[index] < threshold]

    def admits(self, asked: Amounts) -> bool:
        """Whether all of ``asked`` fits."""
        return not self.closed and fits_in(asked, self.room)

    def lacks(self, asked: Amounts, *, final: bool = False, granted: Collection[int] = ()) -> int | None:
        """The place of the first currency that does not fit; those ``granted`` to a child fit there, or nowhere."""
        for index, amount in enumerate(asked):
            if index not in granted and amount > self.available(index, final=final):
                return index
        return None

    def available(self, index: int, *, final: bool = False) -> float:
        """What is left of the currency at this place; for a ``final`` hold, what is kept for a landing too."""
        limit = self.limits[index]
        if not final or limit is None:
            return self.room[index]
        return self.room[index] + limit - self._usable(limit)

    def reserve(self, asked: Amounts, granted: Collection[int] = ()) -> None:
        """Hold ``asked``. Currencies ``granted`` to a child left the room when they were granted."""
        tokens, nano_usd, microjoules, micrograms, calls = asked
        held, room = self.held, self.room
        held[0] += tokens
        held[1] += nano_usd
        held[2] += microjoules
        held[3] += micrograms
        held[4] += calls
        if granted:
            self._move(asked, -1, granted)
            return
        room[0] -= tokens
        room[1] -= nano_usd
        room[2] -= microjoules
        room[3] -= micrograms
        room[4] -= calls

    def settle(self, asked: Amounts, used: Amounts, granted: Collection[int] = ()) -> None:
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
        if granted:
            self._move(asked, 1, granted)
            self._move(used, -1, granted)
            return
        room = self.room
        room[0] += held_tokens - tokens
        room[1] += held_usd - nano_usd
        room[2] += held_joules - microjoules
        room[3] += held_grams - micrograms
        room[4] += held_calls - calls

    def grant(self, amounts: Amounts) -> None:
        """Take ``amounts`` out of the room for a child; negative amounts flow back."""
        for index, amount in enumerate(amounts):
            self.room[index] -= amount

    @property
    def unspent(self) -> tuple[float, ...]:
        """What is not spent yet of each currency, held or not; infinite without a limit."""
        return tuple(
            math.inf if limit is None else limit - spent for limit, spent in zip(self.limits, self.spent, strict=True)
        )

    @property
    def granted(self) -> Amounts:
        """What is set aside for children, and neither held nor spent by them yet."""
        tokens, nano_usd, microjoules, micrograms, calls = (
            0 if limit is None else int(self._usable(limit) - spent - held - room)
            for limit, spent, held, room in zip(self.limits, self.spent, self.held, self.room, strict=True)
        )
        return (tokens, nano_usd, microjoules, micrograms, calls)

    def rang(self) -> list[Currency]:
        """Currencies whose spending has passed the warning share since this was last asked."""
        if not self.alarms:
            return []
        passed = [alarm for alarm in self.alarms if self.spent[alarm[0]] >= alarm[1]]
        for alarm in passed:
            self.alarms.remove(alarm)
        return [COUNTED[index] for index, _ in passed]

    def _move(self, amounts: Amounts, sign: int, granted: Collection[int]) -> None:
        for index, amount in enumerate(amounts):
            if index not in granted:
                self.room[index] += sign * amount

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
