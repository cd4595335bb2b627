from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agentflow.energy.probes import Counter, CounterFacts, Reading, Sampler, rapl, survey, total
from agentflow.energy.probes.cpu_time import CpuTime
from tests.energy.probes.made import FACTS, ScriptedCounter, zone


def test_what_was_counted_since_a_mark():
    counter = ScriptedCounter([Reading(0, 0.0), Reading(1_000_000, 1.0), Reading(5_000_000, 2.0)])
    with Sampler([counter], period_s=600.0) as sampler:
        mark = sampler.mark()
        (window,) = sampler.since(mark)
    assert (window.microjoules, window.seconds) == (4_000_000, 1.0)
    assert counter.closed == 1


def test_the_thread_looks_by_itself_and_ends_with_the_block():
    looked = threading.Event()

    class Watched(ScriptedCounter):
        looks = 0

        def read(self) -> Reading:
            self.looks += 1
            if self.looks == 5:
                looked.set()
            return Reading(self.looks, float(self.looks))

    threads = threading.active_count()
    counter = Watched([])
    with Sampler([counter], period_s=0.001):
        assert looked.wait(timeout=10.0)
    assert threading.active_count() == threads
    looks = counter.looks
    assert counter.closed == 1
    assert counter.looks == looks


def test_an_error_inside_the_block_ends_the_thread_too():
    counter = ScriptedCounter([Reading(0, 0.0)])
    threads = threading.active_count()
    with pytest.raises(RuntimeError, match="mine"), Sampler([counter], period_s=600.0):
        raise RuntimeError("mine")
    assert (threading.active_count(), counter.closed) == (threads, 1)


def test_a_counter_that_is_lost_spoils_its_own_window_alone():
    lost = ScriptedCounter([Reading(0, 0.0), Reading(1, 0.5), None], FACTS)
    kept = ScriptedCounter([Reading(0, 0.0), Reading(1, 0.5), Reading(7, 1.0)], FACTS)
    with Sampler([lost, kept], period_s=600.0) as sampler:
        mark = sampler.mark()
        gone, there = sampler.since(mark)
    assert (gone.reason, gone.microjoules) == ("lost", None)
    assert there.microjoules == 6
    assert total([gone, there]) is None


def test_a_period_that_is_none_is_refused():
    with pytest.raises(ValueError, match="period_s"):
        Sampler([], period_s=0)


def test_without_a_readable_counter_the_prior_serves_and_says_why(tmp_path: Path):
    found = survey(powercap=tmp_path / "none")
    assert found.counters[0].facts.provenance == "modelled"
    assert "there is no" in found.served_by
    assert {one.probe for one in found.absent} >= {"rapl", "apple"}


def test_with_rapl_the_prior_does_not_serve(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    found = survey(powercap=tmp_path)
    assert found.served_by == "the processor is measured by rapl/package-0"
    assert all(counter.facts.provenance == "measured" for counter in found.counters)


def test_the_machine_is_the_sum_of_what_counts(tmp_path: Path):
    folders = [
        zone(tmp_path, "intel-rapl:0", "package-0", 0),
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:1", "package-1", 1_000_000),
    ]
    ticks = iter(range(100))

    class AtSeconds:
        """The same file, on a clock that a test can set."""

        def __init__(self, counter: Counter) -> None:
            self.facts: CounterFacts = counter.facts
            self.counter = counter

        def read(self) -> Reading:
            return Reading(self.counter.read().microjoules, float(next(ticks)) / len(folders))

        def close(self) -> None:
            self.counter.close()

    counters = [AtSeconds(counter) for counter in rapl.find(tmp_path).counters]
    with Sampler(counters, period_s=600.0) as sampler:
        mark = sampler.mark()
        for folder, value in zip(folders, (30_000_000, 20_000_000, 13_000_000), strict=True):
            (folder / "energy_uj").write_text(str(value))
        whole = total(sampler.since(mark))
    assert whole is not None
    assert (whole.mean, whole.provenance, whole.scope) == (42.0, "measured", "board")


def test_a_sum_with_a_modelled_part_is_modelled_and_claims_the_boards_alone():
    board = ScriptedCounter([Reading(0, 0.0), Reading(0, 0.0), Reading(5_000_000, 1.0)])
    prior = ScriptedCounter([Reading(0, 0.0), Reading(0, 0.0), Reading(1_000_000, 1.0)], CpuTime().facts)
    with Sampler([board, prior], period_s=600.0) as sampler:
        mark = sampler.mark()
        whole = total(sampler.since(mark))
    assert whole is not None
    assert (whole.mean, whole.provenance, whole.scope) == (6.0, "modelled", "board")


def test_nothing_to_add_up_is_unknown():
    assert total([]) is None


def test_cpu_seconds_become_joules_of_the_prior(tmp_path: Path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 100 100 9999 9999 50 50 777 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    counter = CpuTime(stat=stat, cores=2)
    # 400 ticks of 10 ms at 7.5 J a CPU second.
    assert counter.read().microjoules == 30_000_000
    assert (counter.facts.low * 7.5, counter.facts.high * 7.5) == pytest.approx((2.6, 25.0))
    assert "whole machine" in counter.facts.covers


@pytest.mark.parametrize("nonsense", ["", "cpu", "cpu a b c d e f g h"])
def test_a_stat_file_of_another_form_is_a_lost_counter(tmp_path: Path, nonsense: str):
    stat = tmp_path / "stat"
    stat.write_text(nonsense)
    with Sampler([CpuTime(stat=stat)], period_s=600.0) as sampler:
        (window,) = sampler.since(sampler.mark())
    assert window.reason == "lost"


def test_off_linux_the_prior_counts_this_process(tmp_path: Path):
    counter = CpuTime(stat=tmp_path / "none")
    assert "this process alone" in counter.facts.covers
    first = counter.read().microjoules
    sum(range(300_000))
    assert counter.read().microjoules > first


def test_the_real_prior_measures_this_machine():
    with Sampler([CpuTime()], period_s=0.02) as sampler:
        mark = sampler.mark()
        window = sampler.since(mark)[0]
        while window.seconds < window.facts.shortest_s:
            window = sampler.since(mark)[0]
    assert window.reason == "ok"
    assert window.microjoules is not None
    assert 0 <= window.microjoules
