"""NVML: the energy counters of NVIDIA boards, by nvidia-ml-py (extra ``gpu``). May import counter, polled.

``nvmlDeviceGetTotalEnergyConsumption`` counts millijoules since the driver was loaded, on Volta and later (NVML
reference). It is refreshed about ten times a second, so that short windows read zero or jump: one second is the least.
The counter is the whole board, whoever uses it; host, network and fans of the server are not in it.
"""

from __future__ import annotations

import importlib
import math
import time
from dataclasses import dataclass, replace
from typing import Any

from agentflow.energy.probes.counter import Absent, Counter, CounterFacts, Found, Reading
from agentflow.energy.probes.polled import SUFFIX, PolledPower
from agentflow.errors import CounterLost

_WHY = (
    "NVML taken to be within 5 %: on A100 and H100 the sensor sees about a quarter of the time (arXiv 2312.02741), "
    "so repeat short measurements"
)
_NO_LIBRARY = Absent(
    "nvml",
    "no_library",
    "the library nvidia-ml-py is not installed.",
    "pip install 'agentflow[gpu]', if there is a GPU.",
)


@dataclass(frozen=True, slots=True)
class NvmlCounter:
    """One board."""

    facts: CounterFacts
    library: Any
    handle: Any

    def read(self) -> Reading:
        """Microjoules since the driver was loaded.

        Raises:
            CounterLost: the board fell off the bus, or the driver went away.
        """
        try:
            millijoules = self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        except self.library.NVMLError as error:
            raise CounterLost(f"{self.facts.name} can no longer be read: {error}.") from error
        return Reading(millijoules * 1000 if isinstance(millijoules, int) else math.nan, time.monotonic())

    def close(self) -> None:
        """Nothing is held: the library is shared by all boards and stays initialised, which NVML allows."""


def find(library: Any = None) -> Found:
    """The boards of this machine: the energy counter of each, and its polled power beside it or in its place.

    Args:
        library: the module ``pynvml``, or one with its functions; imported when None.
    """
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return Found(absent=(_NO_LIBRARY,))
    try:
        library.nvmlInit()
        boards = [library.nvmlDeviceGetHandleByIndex(place) for place in range(library.nvmlDeviceGetCount())]
    except library.NVMLError as error:
        why = f"NVML does not start: {_text(error)}."
        return Found(absent=(Absent("nvml", "no_device", why, "With an NVIDIA GPU here: install its driver."),))
    if not boards:
        return Found(absent=(Absent("nvml", "no_device", "the NVIDIA driver sees no GPU."),))
    counters: list[Counter] = []
    absent: list[Absent] = []
    for place, handle in enumerate(boards):
        found = _board(library, place, handle)
        counters += found.counters
        absent += found.absent
    return Found(tuple(counters), tuple(absent))


def _board(library: Any, place: int, handle: Any) -> Found:
    """One board's counter and polled power, whichever it has."""
    name = _text(_told(library, "nvmlDeviceGetName", handle) or "of unknown name")
    facts = _facts(library, place, handle, name)
    counted = _told(library, "nvmlDeviceGetTotalEnergyConsumption", handle) is not None
    polled = _polled(library, handle, facts, counted=counted)
    if counted:
        return Found((NvmlCounter(facts, library, handle), *polled))
    instead = "its power is polled instead." if polled else "Boards before Volta and some virtual machines have none."
    return Found(polled, (Absent("nvml", "no_counter", f"board {place} ({name}) has no energy counter;", instead),))


def _polled(library: Any, handle: Any, facts: CounterFacts, *, counted: bool) -> tuple[PolledPower, ...]:
    """The board's power as a counter: NVML's own mean of the last second on most boards since Ampere."""
    if _told(library, "nvmlDeviceGetPowerUsage", handle) is None:
        return ()

    def watts() -> float:
        try:
            return library.nvmlDeviceGetPowerUsage(handle) / 1000
        except library.NVMLError as error:
            raise CounterLost(f"{facts.name} can no longer be read: {error}.") from error

    why = "polled power, taken to be within 10 %: what happens between two looks is not seen"
    return (
        PolledPower(replace(facts, name=facts.name + SUFFIX, low=0.9, high=1.1, why=why, counted=not counted), watts),
    )


def _facts(library: Any, place: int, handle: Any, name: str) -> CounterFacts:
    limit_mw = _told(library, "nvmlDeviceGetPowerManagementLimitConstraints", handle)
    mig = _told(library, "nvmlDeviceGetMigMode", handle)
    module = any(part in name for part in ("GH200", "GB200", "GB300"))
    covers = f"module {name}, its CPU too where the driver counts it" if module else f"board {name}"
    return CounterFacts(
        name=f"nvml/{place}",
        covers=f"{covers}, all its MIG instances together" if mig is not None and mig[0] else covers,
        scope="board",
        why=_WHY,
        # Peaks of milliseconds pass the limit; averages do not, so twice the limit cannot be true.
        max_watts=2.0 * limit_mw[1] / 1000 if limit_mw is not None and limit_mw[1] > 0 else 5_000.0,
        resolution_s=0.1,
        grain_uj=1_000.0,
        shortest_s=1.0,
    )


def _told(library: Any, function: str, handle: Any) -> Any:
    """What the library tells of a board; None when it does not."""
    try:
        return getattr(library, function)(handle)
    except (library.NVMLError, AttributeError):
        return None


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
