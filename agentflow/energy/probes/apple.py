"""Apple silicon, by macOS's ``powermetrics``. Written from its output, NOT tested on hardware. May import counter.

The tool needs root, and writes one property list a second, each ended by a zero byte: ``elapsed_ns``, and under
``processor`` the millijoules of CPU, GPU and neural engine in that second. Adding them up makes a counter.
"""

from __future__ import annotations

import contextlib
import math
import os
import plistlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from xml.parsers.expat import ExpatError

from agentflow.energy.probes.counter import Absent, CounterFacts, Found, Reading
from agentflow.errors import CounterLost

TOOL = "/usr/bin/powermetrics"
_COMMAND = (TOOL, "--samplers", "cpu_power,gpu_power", "-i", "1000", "-f", "plist")
_PARTS = ("cpu_energy", "gpu_energy", "ane_energy")
# A sample is some tens of kilobytes; a stream that never ends one is not read for ever.
_LONGEST_SAMPLE = 4_000_000
# No sample's part is larger: a megajoule in a second.
_MOST_MILLIJOULES = 1e9


class AppleCounter:
    """The processor package: CPU, GPU and neural engine of this Mac.

    The tool is started by the first reading and ended by ``close``.

    Args:
        command: the tool with its arguments.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._millijoules = 0.0
        self.facts = CounterFacts(
            name="apple/package",
            covers="CPU, GPU and neural engine; memory and display are not in it",
            scope="board",
            low=0.85,
            high=1.15,
            why="powermetrics' own model of the chip, taken to be within 15 %; this probe was not tested on hardware",
            max_watts=1_000.0,
            resolution_s=1.0,
            grain_uj=1_000.0,
            shortest_s=3.0,
        )

    def read(self) -> Reading:
        """Microjoules of all samples so far.

        Raises:
            CounterLost: the tool cannot be started, has ended, or writes something else.
        """
        process = self._process or self._start()
        for piece in _waiting(process):
            *samples, self._unread = (self._unread + piece).split(b"\0")
            self._millijoules += sum(sample_millijoules(sample) for sample in samples if sample.strip())
            if len(self._unread) > _LONGEST_SAMPLE:
                raise CounterLost("powermetrics writes something that is not a sample.")
        if process.poll() is not None:
            raise CounterLost(f"powermetrics has ended with code {process.returncode}; it needs root.")
        microjoules = self._millijoules * 1000
        return Reading(round(microjoules) if math.isfinite(microjoules) else microjoules, time.monotonic())

    def close(self) -> None:
        """End the tool."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise CounterLost(f"{self._command[0]} cannot be started: {error}.") from error
        if self._process.stdout is not None:
            os.set_blocking(self._process.stdout.fileno(), False)
        return self._process


def sample_millijoules(sample: bytes) -> float:
    """Millijoules of one sample; NaN when it is none.

    Args:
        sample: a property list, XML or binary, without its zero byte.
    """
    try:
        content = plistlib.loads(sample.lstrip())
    except (plistlib.InvalidFileException, ExpatError, ValueError, OverflowError):
        return math.nan
    found = cast("Mapping[str, Any]", content).get("processor") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        return math.nan
    processor = cast("Mapping[str, Any]", found)
    parts = [processor[name] for name in _PARTS if name in processor]
    if not parts or any(isinstance(part, bool) or not isinstance(part, int | float) for part in parts):
        return math.nan
    if not all(0 <= part <= _MOST_MILLIJOULES for part in parts):
        return math.nan
    return float(sum(parts))


def find(platform: str = sys.platform, tool: Path = Path(TOOL)) -> Found:
    """The probe of this Mac; absent on any other machine, and without root."""
    if platform != "darwin":
        return Found(absent=(Absent("apple", "no_device", "not a Mac."),))
    if not tool.is_file():
        return Found(absent=(Absent("apple", "no_device", f"there is no {tool}."),))
    if os.geteuid() != 0:
        why = "powermetrics needs root."
        return Found(absent=(Absent("apple", "no_permission", why, "Run as root: sudo agentflow energy probe."),))
    return Found((AppleCounter((str(tool), *_COMMAND[1:])),))


def _waiting(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What the tool has written and nobody read yet; does not wait for more."""
    if process.stdout is None or process.stdout.closed:
        return
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(process.stdout.fileno(), 65_536):
            yield piece
