"""Probes of devices that this machine has not: their arithmetic and their refusals, on stand-ins of the libraries.

Nothing here shows that a real board answers so; only hardware can.
"""

from __future__ import annotations

import plistlib
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from agentflow.energy.probes import Sampler, amd, apple, nvml
from agentflow.errors import CounterLost


class NvidiaLibrary:
    """As much of pynvml as the probe asks, with the answers of two boards."""

    class NVMLError(Exception):
        pass

    def __init__(self, boards: list[dict[str, Any]] | None = None, *, driver: bool = True) -> None:
        self.boards = boards or []
        self.driver = driver

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, place: int) -> dict[str, Any]:
        return self.boards[place]

    def nvmlDeviceGetName(self, handle: dict[str, Any]) -> bytes | str:
        return handle["name"]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: dict[str, Any]) -> int:
        if handle.get("millijoules") is None:
            raise self.NVMLError("Not Supported")
        return handle["millijoules"]

    def nvmlDeviceGetPowerUsage(self, handle: dict[str, Any]) -> int:
        if handle.get("milliwatts") is None:
            raise self.NVMLError("Not Supported")
        return handle["milliwatts"]

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: dict[str, Any]) -> list[int]:
        return [100_000, handle["limit_mw"]]

    def nvmlDeviceGetMigMode(self, handle: dict[str, Any]) -> list[int]:
        if "mig" not in handle:
            raise self.NVMLError("Not Supported")
        return [handle["mig"], handle["mig"]]


def test_nvidia_boards_count_in_millijoules_and_need_a_second():
    boards = [
        {"name": "NVIDIA H100 80GB HBM3", "millijoules": 5, "limit_mw": 700_000, "mig": 1},
        {"name": b"NVIDIA GH200 480GB", "millijoules": 7, "limit_mw": 900_000},
        {"name": "Tesla P100", "millijoules": None, "limit_mw": 250_000},
    ]
    found = nvml.find(NvidiaLibrary(boards))
    first, second = found.counters
    assert first.read().microjoules == 5_000
    assert first.facts.covers == "board NVIDIA H100 80GB HBM3, all its MIG instances together"
    assert "its CPU too" in second.facts.covers
    assert (first.facts.shortest_s, first.facts.max_watts, first.facts.scope) == (1.0, 1400.0, "board")
    assert (found.absent[0].reason, "Tesla P100" in found.absent[0].why) == ("no_counter", True)


def test_a_board_without_a_counter_is_polled_and_one_with_is_checked():
    boards = [
        {"name": "Tesla P100", "millijoules": None, "limit_mw": 250_000, "milliwatts": 30_000},
        {"name": "NVIDIA L4", "millijoules": 9, "limit_mw": 72_000, "milliwatts": 20_000},
    ]
    found = nvml.find(NvidiaLibrary(boards))
    assert [(counter.facts.name, counter.facts.counted) for counter in found.counters] == [
        ("nvml/0/polled", True),
        ("nvml/1", True),
        ("nvml/1/polled", False),
    ]
    assert "polled instead" in str(found.absent[0])
    assert found.counters[0].read().microjoules == 0
    boards[0]["milliwatts"] = None
    with pytest.raises(CounterLost):
        found.counters[0].read()


def test_a_nvidia_window_under_a_second_gives_no_figure():
    library = NvidiaLibrary([{"name": "board", "millijoules": 5, "limit_mw": 700_000}])
    with Sampler(nvml.find(library).counters, period_s=600.0) as sampler:
        mark = sampler.mark()
        library.boards[0]["millijoules"] = 20
        (window,) = sampler.since(mark)
        library.boards[0]["millijoules"] = None
        (lost,) = sampler.since(mark)
    assert window.reason == "too_short"
    assert lost.reason == "lost"


def test_without_a_nvidia_driver_or_board_it_says_so():
    assert "Driver Not Loaded" in nvml.find(NvidiaLibrary(driver=False)).absent[0].why
    assert "sees no GPU" in nvml.find(NvidiaLibrary()).absent[0].why


def test_without_the_nvidia_library_it_says_which_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    absent = nvml.find().absent[0]
    assert (absent.reason, "agentflow[gpu]" in absent.remedy) == ("no_library", True)


class AmdLibrary:
    """As much of amdsmi as the probe asks."""

    class AmdSmiException(Exception):
        pass

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers

    def amdsmi_init(self) -> None:
        pass

    def amdsmi_get_processor_handles(self) -> list[int]:
        return list(range(len(self.answers)))

    def amdsmi_get_energy_count(self, handle: int) -> Any:
        if self.answers[handle] is None:
            raise self.AmdSmiException("AMDSMI_STATUS_NOT_SUPPORTED")
        return self.answers[handle]


def test_amd_ticks_times_resolution_are_microjoules():
    new = {"energy_accumulator": 1_000_000, "counter_resolution": 15.259, "timestamp": 1}
    old = {"power": 2, "counter_resolution": 15.3}
    found = amd.find(AmdLibrary([new, old, None, "nonsense"]))
    assert [counter.read().microjoules for counter in found.counters[:2]] == [15_259_000, 31]
    nonsense = found.counters[2].read().microjoules
    assert nonsense != nonsense
    assert (found.absent[0].probe, found.absent[0].reason) == ("amd", "no_counter")
    assert "not tested on hardware" in found.counters[0].facts.why


def test_without_amd_or_its_library_it_says_so(monkeypatch: pytest.MonkeyPatch):
    assert "sees no GPU" in amd.find(AmdLibrary([])).absent[0].why
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    assert amd.find().absent[0].reason == "no_library"


def test_a_powermetrics_sample_adds_its_parts():
    sample = {"elapsed_ns": 1_000_000_000, "processor": {"cpu_energy": 1500, "gpu_energy": 300, "ane_energy": 20}}
    assert apple.sample_millijoules(b"\n" + plistlib.dumps(sample)) == 1820.0
    binary = plistlib.dumps({"processor": {"cpu_energy": 7}}, fmt=plistlib.FMT_BINARY)
    assert apple.sample_millijoules(binary) == 7.0


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"<html>",
        plistlib.dumps([1]),
        plistlib.dumps({"processor": {}}),
        plistlib.dumps({"processor": {"cpu_energy": -1}}),
        plistlib.dumps({"processor": {"cpu_energy": "5"}}),
        plistlib.dumps({"processor": {"cpu_energy": 2**63, "gpu_energy": 1}}),
        plistlib.dumps({"processor": [1]}),
    ],
)
def test_a_powermetrics_sample_that_is_none_is_no_number(nonsense: bytes):
    figure = apple.sample_millijoules(nonsense)
    assert figure != figure


TOOL = """
import plistlib, sys, time
for energy in (1000, 2000, 3000):
    sys.stdout.buffer.write(plistlib.dumps({"processor": {"cpu_energy": energy, "gpu_energy": 1}}) + b"\\0")
    sys.stdout.buffer.flush()
sys.stdout.buffer.write(b"<plist>half a sam")
sys.stdout.buffer.flush()
time.sleep(600)
"""


def read_until(counter: apple.AppleCounter, microjoules: int) -> bool:
    """Look until the tool's process has written so much; a bound keeps a failure from hanging."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if counter.read().microjoules == microjoules:
            return True
    return False


def test_powermetrics_is_read_as_it_writes_and_ended_with_the_counter(tmp_path: Path):
    tool = tmp_path / "tool.py"
    tool.write_text(textwrap.dedent(TOOL))
    counter = apple.AppleCounter([sys.executable, str(tool)])
    assert read_until(counter, 6_003_000)
    process = counter._process
    assert process is not None
    counter.close()
    counter.close()
    assert process.poll() is not None


def test_a_powermetrics_that_ends_or_is_not_there_is_a_lost_counter():
    ended = apple.AppleCounter([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(CounterLost, match="code 3"):
        while True:
            ended.read()
    ended.close()
    with pytest.raises(CounterLost, match="cannot be started"):
        apple.AppleCounter(["/nowhere/powermetrics"]).read()


def test_off_a_mac_there_is_no_apple_probe(tmp_path: Path):
    assert apple.find("linux").absent[0].why == "not a Mac."
    assert "there is no" in apple.find("darwin", tmp_path / "none").absent[0].why
