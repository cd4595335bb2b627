"""Dollars as exact integers of nano-dollars, and how they print. Imports nothing of agentflow."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

NANO = 1_000_000_000


def nano_from_decimal(dollars: Decimal) -> int:
    """Dollars as whole nano-dollars, half a nano-dollar up."""
    return int((dollars * NANO).to_integral_value(ROUND_HALF_UP))


def decimal_text(nano: int) -> str:
    """Nano-dollars as an exact decimal number of dollars: ``0.0031``."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    whole, part = divmod(nano, NANO)
    return f"{sign}{whole}.{part:09d}".rstrip("0").rstrip(".")


def format_usd(nano: int) -> str:
    """Nano-dollars for people: ``$0``, ``$0.0031``, ``$12.40``. A positive amount never prints as $0.

    Example:
        >>> format_usd(3_100_000), format_usd(12_400_000_000), format_usd(1)
        ('$0.0031', '$12.40', '$0.000000001')
    """
    if nano == 0:
        return "$0"
    if abs(nano) >= NANO:
        return f"${Decimal(nano) / NANO:,.2f}"
    digits = f"{Decimal(nano) / NANO:.3g}"
    text = f"{Decimal(digits):f}"
    if "." in text:
        text = text.rstrip("0")
    whole, _, part = text.partition(".")
    return f"${whole}.{part.ljust(2, '0')}"
