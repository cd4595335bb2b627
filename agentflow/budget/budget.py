"""Budget: limits per currency, as a value. Imports money, currency, errors. Next: ``meter`` enforces it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from agentflow.budget.currency import LARGEST, MICRO, Currency, Limits
from agentflow.budget.money import NANO
from agentflow.errors import UsageError

OnExceed = Literal["stop", "degrade", "ask"]
Period = Literal["hour", "day", "week", "month"]
_LIMITS: tuple[Currency, ...] = ("usd", "joules", "tokens", "grams_co2e", "calls", "seconds")
_WHOLE: tuple[Currency, ...] = ("tokens", "calls")
# What each is counted in.
_SCALES: Mapping[Currency, int] = {"usd": NANO, "joules": MICRO, "grams_co2e": MICRO}


@dataclass(frozen=True, slots=True)
class Budget:
    """Any subset of limits; None is no limit of its own (the parent's limits still hold).

    Args:
        usd: dollars. A float is read as the decimal it prints as, so 0.1 is exactly a tenth.
        joules: joules, counted at the mean of each call's interval; a hold reserves the upper end.
        tokens: input and output tokens together.
        seconds: wall clock from the moment the node opens.
        grams_co2e: grams of CO2 equivalent, counted and held as joules are.
        calls: attempts, those of code rungs and repairs included.
        on_exceed: what a call does that does not fit. ``stop``: it ends there, with the best valid reply it has or
            with BudgetExceeded. ``degrade``: rungs that still fit are tried in its place. ``ask``: it waits until a
            person raises the limit or declines (``Meter.questions``).
        warn_at: share (0 to 1] of a limit at which a warning is given, once.
        landing: share [0 to 1) of every counted limit that is kept back for a last call (``chain.call(last=True)``).
        per: the limits are for each hour, day, week (ISO) or month of UTC, instead of for the node's whole life.

    Raises:
        UsageError: a limit is zero, negative, not a number or endless.

    Example:
        >>> Budget(usd=0.25, seconds=60).nano_usd
        250000000
    """

    usd: Decimal | float | str | None = None
    joules: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    grams_co2e: float | None = None
    calls: int | None = None
    on_exceed: OnExceed = "stop"
    warn_at: float = 0.8
    landing: float = 0.0
    per: Period | None = None

    def __post_init__(self) -> None:
        """Check every limit that is given."""
        for currency in _LIMITS:
            value = getattr(self, currency)
            if value is not None:
                object.__setattr__(self, currency, _checked(currency, value))
        if self.on_exceed not in get_args(OnExceed):
            raise UsageError(f"on_exceed is '{self.on_exceed}'. It can be {', '.join(get_args(OnExceed))}.")
        if self.per is not None and self.per not in get_args(Period):
            raise UsageError(f"A budget per '{self.per}' is not known. It can be per {', '.join(get_args(Period))}.")
        if not 0.0 < self.warn_at <= 1.0:
            raise UsageError(f"warn_at is a share above 0 and at most 1, got {self.warn_at}.")
        if not 0.0 <= self.landing < 1.0:
            raise UsageError(f"landing is a share from 0 to below 1, got {self.landing}.")
        if self.per is not None and self.seconds is not None:
            raise UsageError("Seconds are wall clock, which passes by itself: they cannot be limited per period.")

    @property
    def nano_usd(self) -> int | None:
        """The limit on dollars in whole nano-dollars, rounded down."""
        return None if self.usd is None else int(Decimal(str(self.usd)) * NANO)

    @property
    def microjoules(self) -> int | None:
        """The limit on joules in whole microjoules, rounded down."""
        return None if self.joules is None else int(Decimal(str(self.joules)) * MICRO)

    @property
    def micrograms(self) -> int | None:
        """The limit on grams of CO2 equivalent in whole micrograms, rounded down."""
        return None if self.grams_co2e is None else int(Decimal(str(self.grams_co2e)) * MICRO)

    @property
    def limits(self) -> Limits:
        """The counted limits in the order of ``currency.COUNTED``."""
        return (self.tokens, self.nano_usd, self.microjoules, self.micrograms, self.calls)

    def with_limits(self, raised: Budget) -> Budget:
        """This budget with every limit that ``raised`` gives in place of its own."""
        given = {c: getattr(raised, c) for c in _LIMITS if getattr(raised, c) is not None}
        return replace(self, **given)


def _checked(currency: Currency, value: object) -> Decimal | float | int:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise UsageError(f"A budget of {value!r} {currency} is not a number. Give a number above 0.") from None
    if not number.is_finite() or number <= 0 or not math.isfinite(float(number)):
        raise UsageError(
            f"A budget of {value} {currency} leaves nothing to spend. Give a number above 0, or leave it out."
        )
    if number * _SCALES.get(currency, 1) > LARGEST * 1024:
        raise UsageError(f"A budget of {value} {currency} is more than can be counted. Leave it out for no limit.")
    if currency == "usd":
        return number
    if currency in _WHOLE:
        if number != number.to_integral_value():
            raise UsageError(f"A budget of {value} {currency} is not a whole number.")
        return int(number)
    return float(number)
