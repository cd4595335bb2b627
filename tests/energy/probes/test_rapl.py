from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentflow.energy.probes import rapl
from agentflow.errors import CounterLost
from tests.energy.probes.made import zone


def names(found: rapl.Found) -> list[tuple[str, bool]]:
    return [(counter.facts.name, counter.facts.counted) for counter in found.counters]


def test_packages_are_counted_and_their_parts_are_not(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 400_000_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 300_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 2_000_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000_000)
    found = rapl.find(tmp_path)
    assert names(found) == [
        ("rapl/package-0", True),
        ("rapl/package-0/core", False),
        ("rapl/package-0/dram", False),
        ("rapl/package-1", True),
        ("rapl/psys", False),
    ]
    assert found.absent == ()
    assert [counter.facts.scope for counter in found.counters] == ["board", "board", "board", "board", "server"]
    assert found.counters[0].facts.wraps_at_uj == 262_143_328_850
    assert found.counters[0].read().microjoules == 1_000_000_000


def test_domains_inside_each_other_are_found_as_those_side_by_side(tmp_path: Path):
    zone(tmp_path / "intel-rapl", "intel-rapl:0", "package-0", 1_000)
    zone(tmp_path / "intel-rapl" / "intel-rapl:0", "intel-rapl:0:0", "core", 400)
    (tmp_path / "intel-rapl" / "intel-rapl:0" / "subsystem").symlink_to(tmp_path)
    assert names(rapl.find(tmp_path)) == [("rapl/package-0", True), ("rapl/package-0/core", False)]
    flat = tmp_path / "class"
    flat.mkdir()
    for path in (tmp_path / "intel-rapl" / "intel-rapl:0", tmp_path / "intel-rapl" / "intel-rapl:0" / "intel-rapl:0:0"):
        (flat / path.name).symlink_to(path)
    assert names(rapl.find(flat)) == [("rapl/package-0", True), ("rapl/package-0/core", False)]


def test_one_package_by_registers_and_by_memory_is_one_counter(tmp_path: Path):
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 7)
    zone(tmp_path, "intel-rapl:0", "package-0", 9)
    found = rapl.find(tmp_path)
    assert names(found) == [("rapl/package-0", True)]
    assert found.counters[0].read().microjoules == 9


def test_dies_that_mirror_one_register_are_one_counter_and_others_are_their_own(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "package-0-die-0", 5_000_000)
    zone(tmp_path, "intel-rapl:1", "package-0-die-1", 5_000_000)
    zone(tmp_path, "intel-rapl:2", "package-1-die-0", 5_000_000)
    zone(tmp_path, "intel-rapl:3", "package-1-die-1", 8_000_000)
    assert names(rapl.find(tmp_path)) == [
        ("rapl/package-0-die-0", True),
        ("rapl/package-1-die-0", True),
        ("rapl/package-1-die-1", True),
    ]


def test_other_folders_of_powercap_are_left_alone(tmp_path: Path):
    zone(tmp_path, "dtpm:0", "package-0", 5)
    (tmp_path / "intel-rapl").mkdir()
    found = rapl.find(tmp_path)
    assert found.counters == ()
    assert found.absent[0].reason == "no_device"
    assert "modprobe" in found.absent[0].remedy


def test_a_machine_without_powercap_says_so(tmp_path: Path):
    found = rapl.find(tmp_path / "none")
    assert found.counters == ()
    assert (found.absent[0].probe, found.absent[0].reason) == ("rapl", "no_device")
    assert "virtual machine" in str(found.absent[0])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_what_root_alone_may_read_is_named_with_what_to_do(open_folder: Path):
    (zone(open_folder, "intel-rapl:0", "package-0", 5) / "energy_uj").chmod(0o400 if os.geteuid() == 0 else 0o000)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        found = rapl.find(open_folder)
    finally:
        os.seteuid(user)
    assert found.counters == ()
    assert found.absent[0].reason == "no_permission"
    assert "intel-rapl:0 may be read by root alone" in found.absent[0].why
    assert "chmod a+r" in found.absent[0].remedy


def test_a_counter_file_that_is_none_is_not_taken_for_one(tmp_path: Path):
    (zone(tmp_path, "intel-rapl:0", "package-0", 5) / "energy_uj").unlink()
    found = rapl.find(tmp_path)
    assert (found.counters, found.absent[0].reason) == ((), "failed")


@pytest.mark.parametrize("nonsense", ["", "nan", "-5", "1e9", "5 5", "9" * 400])
def test_nonsense_in_the_file_is_no_number(tmp_path: Path, nonsense: str):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    counter = rapl.find(tmp_path).counters[0]
    (folder / "energy_uj").write_text(nonsense)
    reading = counter.read()
    assert reading.microjoules != reading.microjoules


def test_a_file_that_goes_away_is_a_lost_counter(tmp_path: Path):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    counter = rapl.find(tmp_path).counters[0]
    (folder / "energy_uj").unlink()
    with pytest.raises(CounterLost, match="can no longer be read"):
        counter.read()
