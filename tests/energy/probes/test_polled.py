from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agentflow.energy.probes.polled import SUFFIX, PolledPower, cross_checks
from agentflow.energy.probes.window import Track, Window, between
from tests.energy.probes.made import FACTS


def polled(watts: list[float], times: list[float]) -> Window:
    device = PolledPower(FACTS, iter(watts).__next__, iter(times).__next__)
    track = Track(FACTS)
    track.add(device.read())
    start = track.place
    for _ in watts[1:]:
        track.add(device.read())
    return between(track, start)


def test_watts_are_added_up_by_trapezoids():
    assert polled([100.0, 100.0, 200.0], [0.0, 1.0, 3.0]).microjoules == 400_000_000


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -1.0])
def test_a_power_that_is_none_spoils_the_window(nonsense: float):
    assert polled([100.0, nonsense, 100.0], [0.0, 1.0, 2.0]).reason == "not_a_number"


def window(name: str, microjoules: int | None) -> Window:
    reason = "ok" if microjoules is not None else "gap"
    return Window(replace(FACTS, name=name), 10.0, microjoules, reason)


def test_a_counter_is_checked_by_its_own_polled_power():
    windows = [window("a", 100), window(f"a{SUFFIX}", 104), window("b", 100), window(f"b{SUFFIX}", 94), window("c", 5)]
    checks = cross_checks(windows)
    assert [(check.counter, check.agrees) for check in checks] == [("a", True), ("b", False)]
    assert checks[0].difference == pytest.approx(0.04)


@pytest.mark.parametrize(("counted", "seen"), [(None, 5), (5, None), (0, 5)])
def test_without_both_figures_there_is_nothing_to_check(counted: int | None, seen: int | None):
    assert cross_checks([window("a", counted), window(f"a{SUFFIX}", seen)]) == ()
