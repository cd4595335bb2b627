"""The currencies a budget limits, how each is counted, and how amounts print. Imports money and energy.interval.

Counted amounts are integers, so that sums are exact: whole tokens, nano-dollars, microjoules, micrograms of CO2e and
calls. Seconds are wall clock: they pass by themselves, so they are not counted but compared with a deadline.
"""

from __future__ import annotations

from typing import Final, Literal

from agentflow.budget.money import decimal_text, format_usd
from agentflow.energy.interval import format_joules

Currency = Literal["tokens", "usd", "joules", "grams_co2e", "calls", "seconds"]
Amounts = tuple[int, int, int, int, int]
Limits = tuple[int | None, int | None, int | None, int | None, int | None]

MICRO: Final = 1_000_000
# What an amount stands for by its place in Amounts.
COUNTED: Final[tuple[Currency, ...]] = ("tokens", "usd", "joules", "grams_co2e", "calls")
NOTHING: Final[Amounts] = (0, 0, 0, 0, 0)
# No single amount is larger: 9 million dollars or 9 GJ in one call is a mistake or a forgery.
LARGEST: Final = 2**53


def format_amount(currency: Currency, amount: float) -> str:
    """A counted amount (or seconds) for people: ``$0.0031``, ``1.2 kJ``, ``1,500 tokens``, ``12 mg CO2e``."""
    match currency:
        case "usd":
            return format_usd(int(amount))
        case "joules":
            return format_joules(amount / MICRO)
        case "grams_co2e":
            return format_grams(amount / MICRO)
        case "tokens":
            return f"{int(amount):,} tokens"
        case "calls":
            return f"{int(amount):,} call{'' if amount == 1 else 's'}"
        case "seconds":
            return f"{amount:.3g} s"


def amount_text(currency: Currency, amount: float) -> str:
    """The same amount as a plain number in the currency's own unit (dollars, joules, grams ...), for machines."""
    match currency:
        case "usd":
            return decimal_text(int(amount))
        case "joules" | "grams_co2e":
            return f"{amount / MICRO:.6g}"
        case "tokens" | "calls":
            return str(int(amount))
        case "seconds":
            return f"{amount:.3f}"


def format_grams(grams: float) -> str:
    """Grams of CO2 equivalent for people, three significant figures: ``12.3 mg CO2e``, ``4.5 kg CO2e``."""
    for factor, unit in ((1e6, "t"), (1e3, "kg"), (1.0, "g"), (1e-3, "mg")):
        if grams >= factor:
            return f"{grams / factor:.3g} {unit} CO2e"
    return f"{grams * 1e6:.3g} µg CO2e" if grams > 0 else "0 g CO2e"
