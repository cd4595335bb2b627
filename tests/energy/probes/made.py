"""Counters and powercap trees made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentflow.energy.probes import CounterFacts, Reading
from agentflow.errors import CounterLost

FACTS = CounterFacts("made", "a made counter", "board", max_watts=1_000.0)


class ScriptedCounter:
    """A counter that shows these readings in turn, and is lost after them; None is a failed look."""

    def __init__(self, readings: Sequence[Reading | None], facts: CounterFacts = FACTS) -> None:
        self.facts = facts
        self.closed = 0
        self._left = list(readings)

    def read(self) -> Reading:
        reading = self._left.pop(0) if self._left else None
        if reading is None:
            raise CounterLost("scripted")
        return reading

    def close(self) -> None:
        self.closed += 1


def zone(root: Path, folder: str, name: str, microjoules: int | str, wraps_at: int = 262_143_328_850) -> Path:
    """One powercap domain, as Linux lays it out."""
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    return path
