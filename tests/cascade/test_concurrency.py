from __future__ import annotations

import asyncio
import random

import pytest

from agentflow.cascade.concurrency import ConcurrencyLimits, Gradient, Slots
from tests.virtual_time import now, run


def fixed(n: int) -> Gradient:
    return Gradient(ConcurrencyLimits(n, n, n))


def test_the_limit_grows_while_nothing_slows_down_and_stops_at_its_most() -> None:
    law = Gradient(ConcurrencyLimits(1, 50, 4))
    for _ in range(200):
        law.saw(0.1, law.limit)
    assert law.limit == 50


def test_the_limit_does_not_grow_when_nobody_asks_for_more() -> None:
    law = Gradient(ConcurrencyLimits(1, 50, 10))
    for _ in range(200):
        law.saw(0.1, 1)
    assert law.limit == 10


def test_the_limit_shrinks_when_the_first_token_gets_slow_and_never_below_its_least() -> None:
    law = Gradient(ConcurrencyLimits(2, 50, 40))
    for _ in range(100):
        law.saw(0.1, 40)
    before = law.limit
    for _ in range(60):
        law.saw(2.0, 40)
    assert law.limit < 0.5 * before
    for _ in range(50):
        law.backed_off()
    assert law.limit == 2


def test_a_refusal_takes_a_tenth() -> None:
    law = Gradient(ConcurrencyLimits(1, 100, 100))
    law.backed_off()
    assert law.limit == 90


@pytest.mark.parametrize("start", [1, 4, 400])
def test_against_a_server_that_is_always_full_the_limit_settles_near_its_capacity(start: int) -> None:
    """A server with 16 slots: whatever is sent beyond them waits, and its first token is late by that."""
    law, rng = Gradient(ConcurrencyLimits(1, 400, start)), random.Random(0)
    limits = list[int]()
    for _ in range(40_000):
        running = law.limit
        law.saw(0.1 * max(running / 16, 1.0) * rng.lognormvariate(0, 0.3), running)
        limits.append(law.limit)
    settled = limits[20_000:]
    busy = sum(min(limit / 16, 1.0) for limit in settled) / len(settled)
    assert busy > 0.97
    assert sum(settled) / len(settled) < 3 * 16


def test_slots_are_given_in_the_order_of_arrival() -> None:
    async def story() -> list[int]:
        slots, order = Slots(fixed(1)), list[int]()

        async def one(n: int) -> None:
            await slots.take(60)
            order.append(n)
            await asyncio.sleep(1)
            slots.give_back()

        async with asyncio.TaskGroup() as group:
            for n in range(8):
                group.create_task(one(n))
        return order

    assert run(story()) == list(range(8))


def test_who_runs_out_of_time_leaves_the_line() -> None:
    async def story() -> None:
        slots = Slots(fixed(1))
        await slots.take(1)
        with pytest.raises(TimeoutError):
            await slots.take(2)
        assert (now(), slots.waiting, slots.in_flight) == (2, 0, 1)
        slots.give_back()
        assert slots.in_flight == 0

    run(story())


def test_a_slot_given_to_one_that_is_cancelled_in_the_same_moment_is_not_lost() -> None:
    async def story() -> None:
        slots = Slots(fixed(1))
        await slots.take(1)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(slots.take(60))
            second = group.create_task(slots.take(60))
            await asyncio.sleep(0)
            slots.give_back()
            first.cancel()
            await second
        assert (slots.in_flight, slots.waiting) == (1, 0)

    run(story())


def test_a_limit_that_rises_lets_waiters_in() -> None:
    async def story() -> None:
        law = Gradient(ConcurrencyLimits(1, 20, 1))
        slots = Slots(law)
        await slots.take(1)
        async with asyncio.TaskGroup() as group:
            waiters = [group.create_task(slots.take(60)) for _ in range(3)]
            await asyncio.sleep(0)
            for _ in range(50):
                law.saw(0.1, law.limit)
            slots.let_in()
            await asyncio.gather(*waiters)
        assert slots.in_flight == 4

    run(story())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_times_out_or_is_cancelled_no_slot_is_lost_and_none_given_twice(seed: int) -> None:
    async def story() -> None:
        rng, slots = random.Random(seed), Slots(Gradient(ConcurrencyLimits(1, 6, 3)))
        running = 0

        async def one() -> None:
            nonlocal running
            await asyncio.sleep(rng.random() * 5)
            await slots.take(rng.random() * 3)
            try:
                running += 1
                assert running <= 6
                await asyncio.sleep(rng.random())
                if rng.random() < 0.2:
                    slots.law.backed_off()
                else:
                    slots.law.saw(rng.random(), slots.in_flight)
            finally:
                running -= 1
                slots.give_back()

        tasks = [asyncio.create_task(one()) for _ in range(100)]
        for task in rng.sample(tasks, 30):
            asyncio.get_running_loop().call_later(rng.random() * 6, task.cancel)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, (TimeoutError, asyncio.CancelledError)) for end in ends)
        assert (slots.in_flight, slots.waiting, running) == (0, 0, 0)

    run(story())
