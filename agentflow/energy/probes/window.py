"""From readings to energy: what a counter counted between two looks, or the reason why that is not known.

A ``Track`` follows one counter and unwraps it; a ``Window`` is the difference of two places on a track. Never a
negative figure, never a figure across a hole. May import counter and interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from agentflow.energy.interval import Energy, format_joules
from agentflow.energy.probes.counter import CounterFacts, Reading

# Version of the record that Window.as_record writes.
RECORD_VERSION = 1
# A sampler looks every second; with three missed, a wrap or a reset may have gone unseen.
LONGEST_GAP_S = 3.0

Reason = Literal["ok", "gap", "backwards", "not_a_number", "jump", "too_short", "lost", "not_read"]

_WHY: dict[Reason, str] = {
    "ok": "",
    "gap": "the counter was not looked at for {figure:.3g} s; beyond 3 s a wrap or a reset may go unseen",
    "backwards": "the counter went backwards by {figure:.6g} J and does not wrap there: it was reset",
    "not_a_number": "the counter gave a value that is not a count of microjoules",
    "jump": "the counter rose by {figure:.3g} W on average between two looks, more than its device can draw",
    "too_short": "the window lasted {figure:.3g} s, less than this counter needs",
    "lost": "the counter could no longer be read",
    "not_read": "the counter was never read",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that makes every window across it invalid."""

    reason: Reason
    figure: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """A place on a track: microjoules counted since its start, at a monotonic time. ``at_s`` is NaN before any look."""

    microjoules: int
    at_s: float


@dataclass(slots=True)
class Track:
    """The readings of one counter, unwrapped and judged as they come in. Keeps sums, not samples.

    ``least_watts`` is the least average power between two looks at least a second apart: while nothing ran in one of
    those seconds it is the idle power, otherwise more than it.
    """

    facts: CounterFacts
    counted_uj: int = 0
    least_watts: float | None = None
    fault: Fault | None = None
    _last: Reading | None = None
    _second: Place | None = None

    @property
    def place(self) -> Place:
        """Where the track stands."""
        return Place(self.counted_uj, math.nan if self._last is None else self._last.at_s)

    def add(self, reading: Reading) -> None:
        """Take in a reading; a faulty one counts nothing and is remembered."""
        if not math.isfinite(reading.microjoules) or reading.microjoules < 0:
            self.fault = Fault("not_a_number", 0.0, reading.at_s)
            return
        last, self._last = self._last, reading
        if last is None:
            self._second = self.place
            return
        rise, fault = _rise(self.facts, last, reading)
        if fault is not None:
            self.fault = fault
        self.counted_uj += rise
        self._note_power()

    def lose(self, at_s: float) -> None:
        """The counter could not be read."""
        self.fault = Fault("lost", 0.0, at_s)

    def _note_power(self) -> None:
        now = self.place
        if self._second is None or now.at_s - self._second.at_s < max(1.0, self.facts.shortest_s):
            return
        if self.fault is None or self.fault.at_s < self._second.at_s:
            watts = (now.microjoules - self._second.microjoules) / 1e6 / (now.at_s - self._second.at_s)
            self.least_watts = watts if self.least_watts is None else min(watts, self.least_watts)
        self._second = now


def _rise(facts: CounterFacts, last: Reading, now: Reading) -> tuple[int, Fault | None]:
    """Microjoules between two readings, or none and the fault."""
    seconds = now.at_s - last.at_s
    rise = now.microjoules - last.microjoules
    wrapped = rise < 0 and facts.wraps_at_uj is not None and last.microjoules <= facts.wraps_at_uj
    fallen_j = -rise / 1e6
    if wrapped and facts.wraps_at_uj is not None:
        rise += facts.wraps_at_uj
    # A value may be as old as the refresh at either end, so that a short look can show a whole refresh.
    most_uj = facts.max_watts * (seconds + facts.resolution_s) * 1e6
    if seconds < 0 or rise < 0 or (wrapped and rise > most_uj):
        return 0, Fault("backwards", fallen_j, now.at_s)
    if seconds > LONGEST_GAP_S:
        return 0, Fault("gap", seconds, now.at_s)
    if rise > most_uj:
        return 0, Fault("jump", rise / 1e6 / max(seconds, facts.resolution_s), now.at_s)
    return int(rise), None


@dataclass(frozen=True, slots=True)
class Window:
    """What a counter counted between two looks.

    Args:
        facts: of the counter.
        seconds: monotonic time between the looks.
        microjoules: counted in between; None when that is not known.
        reason: ``ok``, or why it is not known.
        detail: the same in words; empty when it is known.
        least_watts: the least average power of any second since the track began; None when there was none.
    """

    facts: CounterFacts
    seconds: float
    microjoules: int | None
    reason: Reason
    detail: str = ""
    least_watts: float | None = None

    @property
    def valid(self) -> bool:
        """Whether there is a figure."""
        return self.microjoules is not None

    @property
    def watts(self) -> float | None:
        """Average power; None when it is not known."""
        return None if self.microjoules is None or self.seconds <= 0 else self.microjoules / 1e6 / self.seconds

    def energy(self) -> Energy | None:
        """The joules as a 90 % interval; None when the window is not valid: unknown is not zero.

        The ends are the counter's own error, with one refresh and one grain more or less at the window's ends. So a
        counter that did not move has used between nothing and a grain, not nothing.
        """
        if self.microjoules is None:
            return None
        joules = self.microjoules / 1e6
        stale = min(self.facts.resolution_s / self.seconds, 1.0) if self.seconds > 0 else 1.0
        grain = self.facts.grain_uj / 1e6
        low = max(joules - grain, 0.0) * max(self.facts.low - stale, 0.0)
        high = (joules + grain) * (self.facts.high + stale)
        assumed = (f"{self.facts.name}, {self.facts.covers}", self.facts.why)
        return Energy(joules, low, high, self.facts.provenance, self.facts.scope, assumed)

    def less_idle(self, idle_watts: float) -> tuple[int, int] | None:
        """Microjoules above idle and idle ones; together they are exactly what was counted. None when not valid.

        Args:
            idle_watts: what the device draws with nothing to do. More idle than was counted in all is cut to that.
        """
        if self.microjoules is None:
            return None
        if not math.isfinite(idle_watts) or idle_watts < 0:
            raise ValueError(f"idle_watts must be a finite number of at least 0, got {idle_watts}")
        idle = min(round(idle_watts * self.seconds * 1e6), self.microjoules)
        return self.microjoules - idle, idle

    def as_record(self) -> dict[str, object]:
        """The window for a file: flat, with its validity, reason code and version."""
        return {
            "version": RECORD_VERSION,
            "counter": self.facts.name,
            "covers": self.facts.covers,
            "scope": self.facts.scope,
            "provenance": self.facts.provenance,
            "seconds": round(self.seconds, 6),
            "microjoules": self.microjoules,
            "power_valid": self.valid,
            "reason": self.reason,
            "detail": self.detail,
            "watts": None if self.watts is None else round(self.watts, 6),
            "least_watts": None if self.least_watts is None else round(self.least_watts, 6),
            "counted": self.facts.counted,
        }

    def __str__(self) -> str:
        """For people: ``rapl/package-0: 105 J in 10 s (10.5 W)``."""
        if self.microjoules is None or self.watts is None:
            return f"{self.facts.name}: no figure, {self.detail}"
        return (
            f"{self.facts.name}: {format_joules(self.microjoules / 1e6)} in {self.seconds:.3g} s ({self.watts:.3g} W)"
        )


def between(track: Track, start: Place) -> Window:
    """The window from an earlier place on a track to where it stands now."""
    now = track.place
    seconds = now.at_s - start.at_s
    fault = track.fault
    if math.isnan(seconds):
        reason: Reason = "not_read" if fault is None else fault.reason
        return _invalid(track, 0.0, reason, 0.0 if fault is None else fault.figure)
    if fault is not None and fault.at_s > start.at_s:
        return _invalid(track, seconds, fault.reason, fault.figure)
    if seconds < track.facts.shortest_s:
        return _invalid(track, seconds, "too_short", seconds)
    return Window(track.facts, seconds, now.microjoules - start.microjoules, "ok", "", track.least_watts)


def _invalid(track: Track, seconds: float, reason: Reason, figure: float) -> Window:
    return Window(track.facts, seconds, None, reason, _WHY[reason].format(figure=figure), track.least_watts)
