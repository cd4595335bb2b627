"""Rate limits: a minute's requests at once, then evenly; over several servers where they share PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.jobs.annex import Annex
from agentflow.jobs.database import Database
from agentflow.server.pace import OwnPace, SharedPace, open_pace
from agentflow.server.tables import metadata


@pytest.fixture
async def servers(postgres_url: str) -> AsyncIterator[list[SharedPace]]:
    """Two servers over one database."""
    annexes = [Annex(Database(postgres_url), metadata) for _ in range(2)]
    yield [SharedPace(annex) for annex in annexes]
    for annex in annexes:
        await annex.aclose()


@pytest.mark.parametrize("per_minute", [1, 7, 60])
async def test_a_keys_minute_holds_over_servers(servers: list[SharedPace], per_minute: int) -> None:
    began = time.monotonic()
    waits = await asyncio.gather(*(each.wait_s("key", per_minute) for _ in range(per_minute) for each in servers))
    flown_back = int((time.monotonic() - began) * per_minute / 60) + 1
    assert per_minute <= waits.count(0.0) <= per_minute + flown_back
    refused = [wait for wait in waits if wait > 0.0]
    assert all(0.0 < wait <= 60.0 / per_minute + 0.01 for wait in refused)
    assert await servers[0].wait_s("other", per_minute) == 0.0


async def test_a_refused_key_fits_again_when_it_was_told(servers: list[SharedPace]) -> None:
    per_minute = 1_200
    while not (wait := await servers[0].wait_s("key", per_minute)):
        pass
    assert await servers[0].wait_s("key", per_minute) <= wait <= 0.06
    await asyncio.sleep(wait)
    assert await servers[1].wait_s("key", per_minute) == 0.0


async def test_the_database_is_not_asked_for_a_key_that_is_refused(postgres_url: str) -> None:
    annex, now = Annex(Database(postgres_url), metadata), 0.0
    pace = SharedPace(annex, clock=lambda: now)
    assert [await pace.wait_s("key", 1) > 0 for _ in range(2)] == [False, True]
    await annex.aclose()
    now = 10.0
    assert 49.0 < await pace.wait_s("key", 1) <= 50.0


async def test_a_server_over_sqlite_counts_for_itself(tmp_path: object, postgres_url: str) -> None:
    for address, kind in ((f"{tmp_path}/jobs.db", OwnPace), (postgres_url, SharedPace)):
        annex = Annex(Database(address), metadata)
        assert isinstance(open_pace(annex), kind)
        await annex.aclose()


@given(st.integers(1, 1_000), st.lists(st.floats(0, 30), max_size=60))
def test_no_minute_has_more_than_twice_its_share(per_minute: int, pauses: list[float]) -> None:
    now = 0.0
    pace = OwnPace(clock=lambda: now)
    let_through: list[float] = []
    for pause in pauses:
        now += pause
        while not (wait := pace.count("key", per_minute)) and len(let_through) < 5_000:
            let_through.append(now)
        assert wait <= 60.0 / per_minute + 1e-6
    for start in let_through:
        within = sum(start <= at < start + 60.0 for at in let_through)
        assert within <= 2 * per_minute
