from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.energy.probes import Reading
from agentflow.energy.probes.window import Track, between
from tests.energy.probes.made import FACTS

WRAPPING = replace(FACTS, wraps_at_uj=1_000_000_000)


def track_of(*readings: Reading, facts=FACTS) -> Track:
    track = Track(facts)
    for reading in readings:
        track.add(reading)
    return track


def test_a_window_is_the_difference_of_two_readings():
    track = track_of(Reading(5_000_000, 10.0))
    start = track.place
    track.add(Reading(25_000_000, 12.0))
    window = between(track, start)
    assert (window.microjoules, window.seconds, window.watts, window.reason) == (20_000_000, 2.0, 10.0, "ok")
    energy = window.energy()
    assert energy is not None
    assert (energy.mean, energy.provenance, energy.scope) == (20.0, "measured", "board")
    # 5 % of the counter, a refresh of 1 ms in 2 s, a grain of 100 microjoules.
    assert energy.low == pytest.approx((20 - 0.0001) * (0.95 - 0.0005))
    assert energy.high == pytest.approx((20 + 0.0001) * (1.05 + 0.0005))


def test_a_counter_that_did_not_move_has_used_up_to_a_grain():
    track = track_of(Reading(5, 0.0))
    start = track.place
    track.add(Reading(5, 1.0))
    energy = between(track, start).energy()
    assert energy is not None
    assert (energy.low, energy.mean) == (0.0, 0.0)
    assert energy.high > 100e-6


def test_a_wrap_is_carried_over():
    track = track_of(Reading(999_000_000, 0.0), facts=WRAPPING)
    start = track.place
    track.add(Reading(4_000_000, 1.0))
    assert between(track, start).microjoules == 5_000_000


@pytest.mark.parametrize(
    ("later", "reason", "words"),
    [
        (Reading(0, 1.0), "backwards", "went backwards by 5 J"),
        (Reading(6_000_000, 4.5), "gap", "not looked at for 4.5 s"),
        (Reading(5_000_000_000, 1.0), "jump", "more than its device can draw"),
        (Reading(math.nan, 1.0), "not_a_number", "not a count"),
        (Reading(math.inf, 1.0), "not_a_number", "not a count"),
        (Reading(-1, 1.0), "not_a_number", "not a count"),
        (Reading(5_000_001, 0.001), "too_short", "lasted 0.001 s"),
    ],
)
def test_a_doubtful_window_has_a_reason_and_no_figure(later: Reading, reason: str, words: str):
    track = track_of(Reading(5_000_000, 0.0))
    start = track.place
    track.add(later)
    window = between(track, start)
    assert (window.valid, window.microjoules, window.energy(), window.watts) == (False, None, None, None)
    assert window.reason == reason
    assert words in window.detail
    assert window.less_idle(1.0) is None
    assert window.as_record()["power_valid"] is False


def test_a_reset_of_a_wrapping_counter_is_told_from_a_wrap():
    track = track_of(Reading(500_000_000, 0.0), facts=replace(WRAPPING, max_watts=100.0))
    start = track.place
    track.add(Reading(0, 1.0))
    assert between(track, start).reason == "backwards"


def test_a_fault_spoils_windows_across_it_and_none_after_it():
    track = track_of(Reading(5_000_000, 0.0))
    before = track.place
    track.add(Reading(0, 1.0))
    after = track.place
    track.add(Reading(3_000_000, 2.0))
    assert between(track, before).reason == "backwards"
    assert between(track, after).microjoules == 3_000_000


def test_a_counter_that_was_never_read_has_no_figure():
    track = Track(FACTS)
    start = track.place
    assert between(track, start).reason == "not_read"
    track.lose(1.0)
    assert between(track, start).reason == "lost"


def test_idle_is_reported_apart_and_nothing_is_lost():
    track = track_of(Reading(0, 0.0))
    start = track.place
    track.add(Reading(20_000_000, 2.0))
    window = between(track, start)
    assert window.less_idle(4.0) == (12_000_000, 8_000_000)
    assert window.less_idle(40.0) == (0, 20_000_000)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="idle_watts"):
            window.less_idle(wrong)


def test_the_least_watts_of_any_second_are_kept():
    looks = [(0.0, 0), (1.0, 50), (2.0, 60), (2.5, 61), (3.0, 90)]
    track = track_of(*(Reading(joules * 1_000_000, at) for at, joules in looks))
    assert track.least_watts == 10.0


READINGS = st.lists(
    st.tuples(
        st.one_of(st.integers(-10, 2_000_000_000), st.just(math.nan), st.just(math.inf)),
        st.floats(-0.5, 4.0, allow_nan=False),
    ),
    min_size=2,
    max_size=30,
)


@given(READINGS, st.booleans())
def test_whatever_a_counter_shows_no_window_is_negative_or_beyond_its_device(
    looks: list[tuple[int | float, float]], wraps: bool
):
    facts = WRAPPING if wraps else FACTS
    track, at_s = Track(facts), 0.0
    start = track.place
    for number, (value, step) in enumerate(looks):
        at_s += step
        track.add(Reading(value, at_s))
        if number == 0:
            start = track.place
    window = between(track, start)
    assert (window.microjoules is None) == (window.reason != "ok")
    if window.microjoules is not None:
        assert 0 <= window.microjoules <= facts.max_watts * (window.seconds + len(looks) * facts.resolution_s) * 1e6 + 1
        energy = window.energy()
        assert energy is not None
        assert 0 <= energy.low <= energy.mean <= energy.high


@given(st.lists(st.tuples(st.integers(0, 900_000_000), st.floats(1.0, 2.9)), min_size=2, max_size=20))
def test_windows_side_by_side_add_up_to_the_whole_through_any_wraps(steps: list[tuple[int, float]]):
    value, at_s, parts = 0, 0.0, 0
    track = track_of(Reading(0, 0.0), facts=WRAPPING)
    start = track.place
    for rise, seconds in steps:
        place = track.place
        value, at_s = (value + rise) % 1_000_000_000, at_s + seconds
        track.add(Reading(value, at_s))
        part = between(track, place)
        assert part.microjoules == rise
        parts += rise
    assert between(track, start).microjoules == parts == sum(rise for rise, _ in steps)
