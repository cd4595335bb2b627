"""Energy: joules as an interval that says where it comes from. Imports nothing of agentflow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Provenance = Literal["measured", "reported", "modelled"]
Scope = Literal["board", "server", "facility"]

# From the narrowest: a sum claims no more than all of its parts do.
_SCOPES: tuple[Scope, ...] = ("board", "server", "facility")
_RANK: dict[Provenance, int] = {"measured": 0, "reported": 1, "modelled": 2}


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules used by something.

    ``mean`` is the expectation; ``low`` and ``high`` bound an interval that holds ``coverage`` of all such calls.
    ``provenance`` is the weakest of its parts: a measured figure plus a modelled one is modelled. ``scope`` says whose
    joules they are: the accelerator boards', the server's around them, or the whole facility's. ``assumed`` lists what
    the figure rests on. ``median`` is the middle of one call's distribution, where a model gives it, and ``basis``
    names the figures besides its tokens that a call's joules were found from (``cpu_s``, ``batch``, ``token_s``,
    ``step_s``); sums have neither.

    Example:
        >>> print(Energy(3.0, 1.0, 9.0) + Energy(1.0, 1.0, 1.0, provenance="measured"))
        4 J (2 J to 10 J, modelled)
    """

    mean: float = 0.0
    low: float = 0.0
    high: float = 0.0
    provenance: Provenance = "measured"
    scope: Scope = "facility"
    assumed: tuple[str, ...] = ()
    median: float | None = None
    coverage: float = 0.9
    basis: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse figures that are not an interval of joules."""
        if not 0.0 <= self.low <= self.mean <= self.high < math.inf:
            if not all(map(math.isfinite, (self.low, self.mean, self.high))):
                raise ValueError(f"joules must be finite, got {self.low} / {self.mean} / {self.high}")
            raise ValueError(f"joules need 0 <= low <= mean <= high, got {self.low} / {self.mean} / {self.high}")

    def __add__(self, other: Energy) -> Energy:
        """Add end to end: errors of one model are not independent, so intervals add, they do not shrink."""
        if other.high == 0.0:
            return self
        if self.high == 0.0:
            return other
        return Energy(
            self.mean + other.mean,
            self.low + other.low,
            self.high + other.high,
            weaker(self.provenance, other.provenance),
            narrower(self.scope, other.scope),
            tuple(dict.fromkeys((*self.assumed, *other.assumed))),
            coverage=min(self.coverage, other.coverage),
        )

    def scaled(self, factor: float) -> Energy:
        """The same energy ``factor`` times over, with the same provenance."""
        return replace(
            self,
            mean=self.mean * factor,
            low=self.low * factor,
            high=self.high * factor,
            median=None if self.median is None else self.median * factor,
        )

    def __str__(self) -> str:
        """For people: ``1.2 kJ (0.6 kJ to 3 kJ, modelled)``."""
        if self.low == self.high:
            return f"{format_joules(self.mean)} ({self.provenance})"
        return (
            f"{format_joules(self.mean)} ({format_joules(self.low)} to {format_joules(self.high)}, {self.provenance})"
        )


def weaker(one: Provenance, other: Provenance) -> Provenance:
    """What a sum of both may call itself: a measured figure plus a modelled one is modelled."""
    return max(one, other, key=_RANK.__getitem__)


def narrower(one: Scope, other: Scope) -> Scope:
    """The scope of a sum of both: it claims no more than all of its parts do."""
    return _SCOPES[min(_SCOPES.index(one), _SCOPES.index(other))]


def format_joules(joules: float) -> str:
    """Joules for people, two or three significant figures: ``850 J``, ``1.2 kJ``, ``3.4 MJ``."""
    for factor, unit in ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ"), (1.0, "J")):
        if joules >= factor:
            return f"{joules / factor:.3g} {unit}"
    return f"{joules * 1e3:.3g} mJ" if joules > 0 else "0 J"
