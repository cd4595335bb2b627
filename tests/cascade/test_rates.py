from __future__ import annotations

import asyncio
import random

import pytest

from agentflow.cascade.rates import RateFull, RateLimits, Rates
from tests.virtual_time import now, run


def test_requests_leave_at_the_limits_pace_after_a_first_burst() -> None:
    async def story() -> list[float]:
        rates, left = Rates(RateLimits(requests=60), now), list[float]()

        async def one() -> None:
            await rates.take(0, 600)
            left.append(now())

        async with asyncio.TaskGroup() as group:
            for _ in range(180):
                group.create_task(one())
        return left

    left = run(story())
    assert sum(at == 0 for at in left) == 60
    assert left[-1] == pytest.approx(120, abs=0.1)
    for start in range(60, 170):
        assert left[start + 10] - left[start] == pytest.approx(10, abs=0.1)


def test_tokens_are_weighed_and_a_large_request_keeps_its_place_in_line() -> None:
    async def story() -> list[str]:
        rates, order = Rates(RateLimits(tokens=6_000), now), list[str]()
        await rates.take(6_000, 0)

        async def one(name: str, tokens: float) -> None:
            await rates.take(tokens, 600)
            order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(one("large", 3_000))
            for n in range(5):
                group.create_task(one(f"small {n}", 10))
        return order

    assert run(story()) == ["large", *(f"small {n}" for n in range(5))]


def test_what_was_booked_is_corrected_by_what_was_used_and_waiters_go_sooner() -> None:
    async def story() -> float:
        rates = Rates(RateLimits(tokens=6_000), now)
        await rates.take(6_000, 0)
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(rates.take(3_000, 600))
            await asyncio.sleep(1)
            rates.used(booked=6_000, tokens=1_000)
            await waiter
        return now()

    assert run(story()) == pytest.approx(1, abs=0.01)


def test_who_cannot_be_in_time_is_told_at_once_and_books_nothing() -> None:
    async def story() -> None:
        rates = Rates(RateLimits(requests=60), now)
        for _ in range(60):
            await rates.take(0, 0)
        with pytest.raises(RateFull, match=r"in 1\.0 s"):
            await rates.take(0, 0.5)
        assert now() == 0
        await rates.take(0, 1.5)
        assert now() == pytest.approx(1, abs=0.01)

    run(story())


def test_more_than_a_minutes_tokens_go_when_the_bucket_is_empty() -> None:
    async def story() -> None:
        rates = Rates(RateLimits(tokens=100), now)
        await rates.take(250, 0)
        await rates.take(1, 600)
        # 250 tokens are two and a half minutes' worth; all but the last minute's must have drained.
        assert now() == pytest.approx(90.6, abs=0.1)

    run(story())


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_cancelled_no_booking_stays_and_no_minute_has_more_than_its_worth(seed: int) -> None:
    async def story() -> None:
        rng = random.Random(seed)
        limits = RateLimits(requests=30, tokens=3_000)
        rates, sent = Rates(limits, now), list[tuple[float, float]]()

        async def one() -> None:
            tokens = rng.randrange(1, 400)
            await asyncio.sleep(rng.random() * 120)
            try:
                async with asyncio.timeout(rng.random() * 60):
                    await rates.take(tokens, rng.random() * 120)
            except (RateFull, TimeoutError):
                return
            sent.append((now(), tokens))

        async with asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(one())
        assert rates.waiting == 0
        assert rates._timer is None or rates._timer.cancelled() or rates._timer.when() <= now()
        sent.sort()
        for start, _ in sent:
            within = [tokens for at, tokens in sent if start <= at < start + 60]
            # A full bucket, and what drains from it meanwhile.
            assert len(within) <= 2 * limits.requests + 1  # type: ignore[operator]
            assert sum(within) <= 2 * limits.tokens + 400  # type: ignore[operator]
        await asyncio.sleep(240)
        assert rates.wait_s(3_000) == 0
        await rates.take(3_000, 0)

    run(story())
