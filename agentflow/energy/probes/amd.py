"""AMD boards, by amdsmi (it comes with ROCm). Written from its documentation, NOT tested on hardware.

Why not sysfs: the kernel's amdgpu gives power under hwmon but no energy file, and the counter in its ``gpu_metrics``
is a binary table that changes with each generation. ``amdsmi_get_energy_count`` reads that table for us: accumulator
times resolution is microjoules (AMD SMI reference; not supported in virtual machines). May import counter.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from agentflow.energy.probes.counter import Absent, CounterFacts, Found, Reading
from agentflow.errors import CounterLost

_NO_LIBRARY = Absent(
    "amd",
    "no_library",
    "the library amdsmi is not installed.",
    "With an AMD GPU here: it comes with ROCm, in its folder share/amd_smi.",
)


@dataclass(frozen=True, slots=True)
class AmdCounter:
    """One board."""

    facts: CounterFacts
    library: Any
    handle: Any

    def read(self) -> Reading:
        """Microjoules since some start; NaN, which the window refuses, when the library answers otherwise.

        Raises:
            CounterLost: the board can no longer be read.
        """
        try:
            answer = self.library.amdsmi_get_energy_count(self.handle)
        except self.library.AmdSmiException as error:
            raise CounterLost(f"{self.facts.name} can no longer be read: {error}.") from error
        return Reading(_microjoules(answer), time.monotonic())

    def close(self) -> None:
        """Nothing is held: the library stays initialised for the other boards."""


def find(library: Any = None) -> Found:
    """The AMD boards of this machine.

    Args:
        library: the module ``amdsmi``, or one with its functions; imported when None.
    """
    if library is None:
        try:
            library = importlib.import_module("amdsmi")
        except (ImportError, OSError, KeyError):
            # Without its shared library the module fails in ways of its own.
            return Found(absent=(_NO_LIBRARY,))
    try:
        library.amdsmi_init()
        boards = list(library.amdsmi_get_processor_handles())
    except library.AmdSmiException as error:
        return Found(absent=(Absent("amd", "no_device", f"AMD SMI does not start: {error}."),))
    counters: list[AmdCounter] = []
    absent: list[Absent] = []
    for place, handle in enumerate(boards):
        counter = AmdCounter(_facts(place), library, handle)
        try:
            counter.read()
            counters.append(counter)
        except CounterLost as error:
            absent.append(Absent("amd", "no_counter", str(error), "In virtual machines there is none."))
    if not boards:
        absent.append(Absent("amd", "no_device", "the AMD driver sees no GPU."))
    return Found(tuple(counters), tuple(absent))


def _facts(place: int) -> CounterFacts:
    return CounterFacts(
        name=f"amd/{place}",
        covers=f"AMD board {place}",
        scope="board",
        why="AMD SMI taken to be within 5 %; this probe was not tested on hardware",
        resolution_s=0.1,
        shortest_s=1.0,
    )


def _microjoules(answer: object) -> float | int:
    told: Mapping[str, object] = cast("dict[str, object]", answer) if isinstance(answer, dict) else {}
    # The accumulator's key was "power" before ROCm 6.
    ticks, resolution = told.get("energy_accumulator", told.get("power")), told.get("counter_resolution")
    if not isinstance(ticks, int | float) or not isinstance(resolution, int | float):
        return math.nan
    figure = ticks * resolution
    return round(figure) if math.isfinite(figure) else math.nan
