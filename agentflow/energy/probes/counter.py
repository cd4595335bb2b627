"""What every probe offers: a counter of microjoules that can be read, or the reason why there is none.

A counter is read again and again; the difference of two readings is what its device used in between. What a reading
means between two looks (wraps, gaps, jumps) is decided in ``window``. May import interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from agentflow.energy.interval import Provenance, Scope


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a counter.

    Args:
        microjoules: since a start that the device chose; only differences mean something. A float is allowed so that
            a device's nonsense (NaN) reaches the judgement in ``window`` instead of a traceback.
        at_s: seconds of the monotonic clock when it was looked at.
    """

    microjoules: int | float
    at_s: float


@dataclass(frozen=True, slots=True)
class CounterFacts:
    """What is known of a counter before it is read.

    Args:
        name: unique on this machine, for instance ``rapl/package-0``.
        covers: the parts whose energy it counts, in words.
        scope: ``board`` for a device alone, else that of the machine around it.
        provenance: ``measured`` by a device, or ``modelled`` by a prior that stands in where no device counts.
        low: the lower end of the 90 % interval, as a factor of the figure.
        high: the upper end, likewise.
        why: where ``low`` and ``high`` come from.
        max_watts: more than this, on average between two readings, cannot be true.
        wraps_at_uj: the highest value before it starts again at zero, microjoules; None when it does not.
        resolution_s: how old a value may be, because the device refreshes it only so often.
        grain_uj: the step that the figure goes up by, microjoules: a window may be off by so much.
        shortest_s: windows shorter than this give no figure.
        counted: whether it belongs in the machine's total; a part that another counter includes does not.
    """

    name: str
    covers: str
    scope: Scope
    provenance: Provenance = "measured"
    low: float = 0.95
    high: float = 1.05
    why: str = "counter taken to be within 5 %"
    max_watts: float = 5_000.0
    wraps_at_uj: int | None = None
    resolution_s: float = 0.001
    grain_uj: float = 100.0
    shortest_s: float = 0.01
    counted: bool = True


class Counter(Protocol):
    """A counter of one device. Reading is quick (under a few milliseconds) and safe from any thread, one at a time."""

    @property
    def facts(self) -> CounterFacts:
        """What is known of it."""
        ...

    def read(self) -> Reading:
        """Look at the counter.

        Raises:
            CounterLost: it can no longer be read.
        """
        ...

    def close(self) -> None:
        """Let go of what reading needs. Closing twice changes nothing."""
        ...


AbsentReason = Literal["no_device", "no_permission", "no_library", "no_counter", "failed"]


@dataclass(frozen=True, slots=True)
class Absent:
    """A probe that cannot serve on this machine.

    Args:
        probe: its name: ``rapl``, ``nvml``, ``amd``, ``apple``.
        reason: in one word, for programs.
        why: in a sentence, for people.
        remedy: what to do about it; empty when nothing can be done.
    """

    probe: str
    reason: AbsentReason
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        """Why, and what to do."""
        return f"{self.probe}: {self.why}" + (f" {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe found: counters to read, and what is absent. The owner closes the counters."""

    counters: tuple[Counter, ...] = ()
    absent: tuple[Absent, ...] = ()
