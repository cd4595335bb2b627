"""Budget: limits per currency, as a value. Imports money, errors. Next: ``meter`` enforces it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

from agentflow.budget.money import NANO
from agentflow.errors import UsageError

Currency = Literal["tokens", "usd", "joules", "seconds"]
MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """Any subset of limits; None is no limit of its own (the parent's limits still hold).

    Args:
        usd: dollars. A float is read as the decimal it prints as, so 0.1 is exactly a tenth.
        joules: joules, counted at the mean of each call's interval; a hold reserves the upper end.
        tokens: input and output tokens together.
        seconds: wall clock from the moment the node opens.

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

    def __post_init__(self) -> None:
        """Check every limit that is given."""
        for currency in ("usd", "joules", "tokens", "seconds"):
            value = getattr(self, currency)
            if value is not None:
                object.__setattr__(self, currency, _checked(currency, value))

    @property
    def nano_usd(self) -> int | None:
        """The limit on dollars in whole nano-dollars, rounded down."""
        return None if self.usd is None else int(Decimal(str(self.usd)) * NANO)

    @property
    def microjoules(self) -> int | None:
        """The limit on joules in whole microjoules, rounded down."""
        return None if self.joules is None else int(Decimal(str(self.joules)) * MICRO)

    def share(self, part: float) -> Budget:
        """The limits of a child that may use at most ``part`` (0 to 1] of each of these."""
        if not 0.0 < part <= 1.0:
            raise UsageError(f"A budget share must be above 0 and at most 1, got {part}.")
        return Budget(
            usd=None if self.usd is None else Decimal(str(self.usd)) * Decimal(str(part)),
            joules=None if self.joules is None else self.joules * part,
            tokens=None if self.tokens is None else max(1, int(self.tokens * part)),
            seconds=None if self.seconds is None else self.seconds * part,
        )


def _checked(currency: str, value: object) -> Decimal | float | int:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise UsageError(f"A budget of {value!r} {currency} is not a number. Give a number above 0.") from None
    if not number.is_finite() or number <= 0 or not math.isfinite(float(number)):
        raise UsageError(
            f"A budget of {value} {currency} leaves nothing to spend. Give a number above 0, or leave it out."
        )
    if currency == "usd":
        return number
    if currency == "tokens":
        if number != number.to_integral_value():
            raise UsageError(f"A budget of {value} tokens is not a whole number.")
        return int(number)
    return float(number)
