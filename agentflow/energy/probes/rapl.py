"""RAPL: the energy counters of Intel and AMD processors, by Linux's powercap files. May import counter.

Files and units: ``energy_uj`` in microjoules, ``max_energy_range_uj`` where it starts again at zero, ``name`` the
domain (Linux kernel, Documentation/power/powercap/powercap.rst). A package holds its cores and its graphics;
``dram`` is beside it on servers and inside it on some other parts, ``psys`` is the whole platform with the packages
in it. So only packages are counted, each once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentflow.energy.probes.counter import Absent, CounterFacts, Found, Reading
from agentflow.errors import CounterLost

POWERCAP = Path("/sys/class/powercap")

_ZONE = re.compile(r"^(?:intel-rapl|intel-rapl-mmio|amd-rapl):\d+(?::\d+)?$")
_FOLDER = re.compile(r"^(?:intel-rapl|intel-rapl-mmio|amd-rapl)(?::\d+){0,2}$")
_DIE = re.compile(r"-die-\d+$")
_READABLE_BY_ALL = (
    "Let everybody read it until the next start: sudo chmod a+r /sys/class/powercap/*rapl*/energy_uj (root alone reads "
    "it by default since 2020, because a neighbour could learn secrets from it: CVE-2020-8694)."
)
_WHY = "RAPL taken to be within 5 % of the package; memory, fans and power supply are not in it"


@dataclass(frozen=True, slots=True)
class RaplCounter:
    """One domain: a file that is read."""

    facts: CounterFacts
    file: Path

    def read(self) -> Reading:
        """Microjoules since some start.

        Raises:
            CounterLost: the file is gone or may no longer be read.
        """
        try:
            text = self.file.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise CounterLost(f"{self.file} can no longer be read: {error}.") from error
        return Reading(_microjoules(text), time.monotonic())

    def close(self) -> None:
        """Nothing is held."""


def find(root: Path = POWERCAP) -> Found:
    """The RAPL domains of this machine.

    Args:
        root: the powercap folder, for a machine that mounts it elsewhere.
    """
    zones = _zones(root)
    if not zones:
        return Found(absent=(_nothing_under(root),))
    refused = {path: error for path in zones.values() if (error := _refusal(path / "energy_uj")) is not None}
    counters = tuple(_distinct({name: path for name, path in zones.items() if path not in refused}))
    return Found(counters, (_refused(refused),) if refused else ())


def _zones(root: Path, depth: int = 3) -> dict[str, Path]:
    """Domains by the name of their folder, which is unique: all side by side, or each inside what it is a part of."""
    found: dict[str, Path] = {}
    for path in _children(root):
        if _ZONE.match(path.name):
            found[path.name] = path
        if depth > 1 and _FOLDER.match(path.name):
            found = _zones(path, depth - 1) | found
    return found


def _distinct(zones: Mapping[str, Path]) -> Iterator[RaplCounter]:
    """A counter for each domain; those that show the same register again are left out."""
    packages: dict[str, list[RaplCounter]] = {}
    for zone in sorted(zones.values(), key=_order):
        name, above = _name(zone), zones.get(zone.name.rsplit(":", 1)[0])
        counter = RaplCounter(_facts(zone, name, above), zone / "energy_uj")
        if not counter.facts.counted:
            yield counter
            continue
        # The same package shows up by registers and by mapped memory, and every die of it may show the whole package.
        seen = packages.setdefault(_DIE.sub("", name), [])
        if any(counter.facts.name == other.facts.name or _mirrors(counter, other) for other in seen):
            continue
        seen.append(counter)
        yield counter


def _mirrors(one: RaplCounter, other: RaplCounter) -> bool:
    """Whether two files show one register: a look at the one between two looks at the other lies between them."""
    try:
        before, between, after = other.read(), one.read(), other.read()
    except CounterLost:
        return False
    return before.microjoules <= between.microjoules <= after.microjoules


def _facts(zone: Path, name: str, above: Path | None) -> CounterFacts:
    package = name.startswith("package")
    covers = {
        "core": "the cores, a part of the package",
        "uncore": "the graphics, a part of the package",
        "dram": "the memory; on some parts inside the package's figure",
        "psys": "the platform, packages included",
    }.get(name, f"processor {name}: cores, cache, memory controller" if package else f"domain {name}")
    label = name if above is None else f"{_name(above)}/{name}"
    wraps = _number(zone / "max_energy_range_uj")
    return CounterFacts(
        name=f"rapl/{label}",
        covers=covers,
        scope="server" if name == "psys" else "board",
        why=_WHY,
        # The largest packages sold draw about 500 W, a platform with four of them 2 kW: twice that is a mistake.
        max_watts=4_000.0 if name == "psys" else 1_500.0,
        wraps_at_uj=wraps,
        counted=package,
    )


def _nothing_under(root: Path) -> Absent:
    if not root.is_dir():
        why = f"there is no {root}: a virtual machine, a container without it, or not Linux."
        remedy = "In a container: mount the host's /sys/devices/virtual/powercap, and name that folder."
        return Absent("rapl", "no_device", why, remedy)
    return Absent(
        "rapl",
        "no_device",
        f"{root} has no RAPL domain: the processor has none, or its driver is not loaded.",
        "Try: sudo modprobe intel_rapl_msr (it serves AMD too). In a virtual machine there is none.",
    )


def _refused(zones: Mapping[Path, OSError]) -> Absent:
    names = [zone.name for zone in zones]
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    if any(isinstance(error, PermissionError) for error in zones.values()):
        return Absent("rapl", "no_permission", f"not readable: {shown} may be read by root alone.", _READABLE_BY_ALL)
    return Absent("rapl", "failed", f"not readable: {shown}: {next(iter(zones.values())).strerror}.")


def _children(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def _refusal(file: Path) -> OSError | None:
    try:
        file.read_bytes()
    except OSError as error:
        return error
    return None


def _order(zone: Path) -> tuple[int, ...]:
    """By number, domains of registers before those of mapped memory."""
    return (int(zone.name.startswith("intel-rapl-mmio")), *(int(part) for part in zone.name.split(":")[1:]))


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text("utf-8", errors="replace").strip() or zone.name
    except OSError:
        return zone.name


def _number(file: Path) -> int | None:
    try:
        value = _microjoules(file.read_text("ascii"))
    except (OSError, UnicodeDecodeError):
        return None
    return int(value) if value > 0 else None


def _microjoules(text: str) -> float | int:
    """A count as the kernel writes it; NaN for anything else, which the window refuses."""
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) <= 20 else float("nan")
