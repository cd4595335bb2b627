"""Which counter serves on this machine, and why not a better one. May import everything of this folder.

Processors: RAPL or Apple's package counter; where neither can be read, CPU seconds times a prior. Boards: NVML and
AMD SMI, each beside the processor's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from agentflow.energy.interval import Energy
from agentflow.energy.probes import amd, apple, nvml, rapl
from agentflow.energy.probes.counter import Absent, Counter
from agentflow.energy.probes.cpu_time import CpuTime
from agentflow.energy.probes.window import Window


@dataclass(frozen=True, slots=True)
class Survey:
    """The counters that serve on this machine, the probes that do not, and why these ones.

    A ``Sampler`` given the counters owns and closes them.
    """

    counters: tuple[Counter, ...]
    absent: tuple[Absent, ...]
    served_by: str


def survey(powercap: Path = rapl.POWERCAP) -> Survey:
    """Look for every counter of this machine; without one of its processor, the prior serves.

    Args:
        powercap: where RAPL's files are.
    """
    processor, mac = rapl.find(powercap), apple.find()
    boards = (nvml.find(), amd.find())
    measured = (*processor.counters, *mac.counters)
    absent = tuple(one for found in (processor, mac, *boards) for one in found.absent)
    gpus = tuple(counter for found in boards for counter in found.counters)
    if names := [counter.facts.name for counter in measured if counter.facts.counted]:
        return Survey((*measured, *gpus), absent, f"the processor is measured by {', '.join(names)}")
    because = "; ".join(
        one.why.rstrip(".") for one in absent if one.probe in ("rapl", "apple") and one.why != "not a Mac."
    )
    return Survey(
        (CpuTime(), *measured, *gpus), absent, f"the processor is modelled from busy CPU seconds, because {because}"
    )


def total(windows: Iterable[Window]) -> Energy | None:
    """The machine's joules over some windows: the sum of the counters that belong in it, each part once.

    None when any of those has no figure, or none is there: a sum with an unknown part is unknown.
    """
    parts = [window.energy() for window in windows if window.facts.counted]
    if not parts or any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    whole = known[0]
    for part in known[1:]:
        whole = whole + part
    # With a bare board among them, nobody has seen all of what is around it: the sum claims no more than that.
    return replace(whole, scope="board") if any(part.scope == "board" for part in known) else whole
