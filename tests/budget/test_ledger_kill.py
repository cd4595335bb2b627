"""kill -9 at random moments: what was promised is kept, nothing is charged twice, what is unknown is accounted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from agentflow.budget.ledger import EntryFilter
from agentflow.budget.ledger.durable import DurableLedger
from tests.budget.ledger_worker import HELD, TASKS, Workers, open_ledger

KILLS = 50


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


async def everything_is_recovered(ledger: DurableLedger) -> None:
    """A killed process' connection may live on in the server for a moment."""
    async with asyncio.timeout(20):
        while await ledger.entries(EntryFilter(state="held")):
            await ledger.recover()


async def test_fifty_kills_lose_nothing_and_charge_nothing_twice(address: str) -> None:
    chance = random.Random(20261121)
    settled: dict[str, int] = {}
    held: set[str] = set()
    with Workers() as workers:
        for kill in range(KILLS):
            # Every second worker walks the path of the one before, and must be given its replies.
            pid = workers.start(address, "a", seed=kill // 2)
            left = chance.randint(1, 120)
            for words in workers.lines():
                word, key = words[0], words[1]
                if word == "held":
                    assert key not in settled, "an attempt that was settled was opened again"
                    held.add(key)
                elif word == "settled":
                    settled[key] = int(words[2])
                elif word == "replayed" and words[2] == "settled":
                    assert settled.setdefault(key, int(words[3])) == int(words[3])
                left -= 1
                if left == 0:
                    os.kill(pid, signal.SIGKILL)
            if left > 0:
                pytest.fail("the worker ended before it was killed")
    ledger = open_ledger(address)
    try:
        await everything_is_recovered(ledger)
        entries = {entry.key: entry for entry in await ledger.entries()}
        for key, tokens in settled.items():
            spend = entries[key].spend
            assert entries[key].state == "settled" and spend is not None and spend.tokens == tokens
            found = await ledger.find(key)
            assert found is not None and found.completion is not None
            assert found.completion.text == f"reply to {key}"
        for key in held:
            assert entries[key].state in ("settled", "released", "in_doubt")
        doubted = [entry for entry in entries.values() if entry.state == "in_doubt"]
        assert doubted, "fifty kills found nobody in the middle of a call"
        assert all(entry.spend is not None and entry.spend.tokens == HELD for entry in doubted)
        assert await ledger.audit() == []
        recount = sum(entry.spend.tokens for entry in entries.values() if entry.spend is not None)
        state = await ledger.account("tenant")
        assert state is not None and state.account.spent[0] == recount
        assert state.account.spent[4] == len([entry for entry in entries.values() if entry.spend is not None])
    finally:
        await ledger.aclose()


async def test_two_processes_share_one_tenants_budget(address: str) -> None:
    limit = 100_000
    with Workers() as one, Workers() as two:
        # Each asks for 0.6 of the budget, so that both have a part of it however fast one of them is.
        for workers, name in ((one, "one"), (two, "two")):
            workers.start(address, name, limit=limit, most=limit * 6 // 10 // HELD // TASKS)
        for workers in (one, two):
            assert any(words[0] == "settled" for words in list(workers.lines()))
    ledger = open_ledger(address)
    try:
        state = await ledger.account("tenant")
        assert state is not None
        print(f"spent {state.account.spent[0]} of {limit}: {state.account.spent[0] / limit:.3f}")
        assert 0.95 * limit <= state.account.spent[0] <= limit
        assert state.account.held == [0] * 5
        assert await ledger.audit() == []
        jobs = {entry.node for entry in await ledger.entries() if entry.state == "settled"}
        assert jobs == {"tenant/job-one", "tenant/job-two"}
    finally:
        await ledger.aclose()


async def test_a_living_process_is_not_taken_for_dead(address: str) -> None:
    with Workers() as workers:
        pid = workers.start(address, "a")
        assert next(workers.lines())[0] == "held"
        ledger = open_ledger(address)
        try:
            assert await ledger.recover() == 0
            os.kill(pid, signal.SIGKILL)
            list(workers.lines())
            await everything_is_recovered(ledger)
        finally:
            await ledger.aclose()
