from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentflow.cascade.health import Breaker, BreakerLimits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock, **limits: float) -> Breaker:
    breaker = Breaker(BreakerLimits(**limits), clock)  # type: ignore[arg-type]
    for _ in range(5):
        assert breaker.admit()
        breaker.failed()
    assert breaker.health == "open"
    return breaker


def test_failures_in_a_row_open_it_and_a_reply_between_starts_the_count_anew() -> None:
    breaker = Breaker(BreakerLimits(failures=3), Clock())
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert breaker.health == "closed"
    breaker.failed()
    assert breaker.health == "open"
    assert not breaker.admit()


def test_a_share_of_failures_opens_it_too_once_the_window_is_full() -> None:
    breaker = Breaker(BreakerLimits(failures=5, rate=0.5, window=10), Clock())
    for _ in range(4):
        breaker.failed()
        breaker.succeeded()
    assert breaker.health == "closed"
    breaker.succeeded()
    breaker.failed()
    assert breaker.health == "open"


def test_after_its_time_one_probe_passes_and_its_reply_closes_the_circuit() -> None:
    clock = Clock()
    breaker = opened(clock, open_s=5)
    clock.now += 4.9
    assert not breaker.admit()
    assert breaker.retry_s == pytest.approx(0.1)
    clock.now += 0.2
    assert breaker.health == "half_open"
    assert breaker.admit()
    assert not breaker.admit(), "one probe at a time"
    breaker.succeeded()
    assert breaker.health == "closed"
    assert breaker.admit() and breaker.admit()


def test_a_probe_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    clock = Clock()
    breaker = opened(clock, open_s=5, longest_s=30)
    for wait in (10, 20, 30, 30):
        clock.now += 1_000
        assert breaker.admit()
        breaker.failed(probe=True)
        assert breaker.retry_s == pytest.approx(wait)


def test_a_probe_that_is_cancelled_leaves_the_next_one_a_chance() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1_000
    assert breaker.admit()
    breaker.dropped(probe=True)
    assert breaker.health == "half_open"
    assert breaker.admit()


def test_calls_from_before_it_opened_neither_end_the_probe_nor_lengthen_the_wait() -> None:
    clock = Clock()
    breaker = opened(clock, open_s=5)
    clock.now += 6
    assert breaker.admit()
    breaker.dropped()
    assert breaker.health == "open", "the probe is still on its way"
    clock.now += 0.1
    breaker.failed()
    assert breaker.retry_s == 0


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then() -> None:
    breaker = Breaker(BreakerLimits(failures=5, open_s=5, longest_s=60), Clock())
    breaker.failed(rest_s=2)
    assert (breaker.health, breaker.retry_s) == ("open", 2)
    breaker.failed(rest_s=20)
    assert breaker.retry_s == 20
    breaker.failed(rest_s=1e9)
    assert breaker.retry_s == 60, "it cannot shut itself out for ever"


def test_of_several_probes_that_fail_only_the_first_lengthens_the_wait() -> None:
    breaker = opened(Clock(), open_s=5)
    for _ in range(10):
        assert breaker.admit(anyway=True)
    for _ in range(10):
        breaker.failed(probe=True)
    assert breaker.retry_s == 10


def test_with_nothing_else_left_an_open_circuit_is_tried_all_the_same() -> None:
    breaker = opened(Clock())
    assert not breaker.admit()
    assert breaker.admit(anyway=True)
    breaker.succeeded()
    assert breaker.health == "closed"


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls, ends and time: never two probes at once, never shut for good."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(BreakerLimits(failures=2, open_s=5, longest_s=40), self.clock)
        self.running = 0
        self.probing = False

    @rule()
    def arrive(self) -> None:
        before = self.breaker.health
        admitted = self.breaker.admit()
        assert admitted == (before != "open")
        if admitted and before == "half_open":
            assert not self.probing
            self.probing = True
        elif admitted:
            self.running += 1

    @rule()
    def probe_succeeds(self) -> None:
        if self.probing:
            self.breaker.succeeded()
            self.probing = False
            assert self.breaker.health == "closed"

    @rule(end=st.sampled_from(["failed", "dropped"]))
    def probe_ends(self, end: str) -> None:
        if self.probing:
            getattr(self.breaker, end)(probe=True)
            self.probing = False
            assert self.breaker.health != "open" or end == "failed"

    @rule(end=st.sampled_from(["succeeded", "failed", "dropped"]))
    def call_ends(self, end: str) -> None:
        if self.running:
            getattr(self.breaker, end)()
            self.running -= 1
            if end == "succeeded":
                # The circuit is closed by any reply; the probe, if there is one, is a call like others from here.
                self.running += self.probing
                self.probing = False

    @rule(seconds=st.floats(0, 50))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def opens_again(self) -> None:
        assert self.breaker.retry_s <= 40
        if not self.probing:
            assert self.breaker.health in ("closed", "half_open") or self.breaker.retry_s > 0


TestBreakerMachine = BreakerMachine.TestCase
