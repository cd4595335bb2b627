"""Branches that run side by side get their own answers after a crash, in whatever order their calls were made.

A journal that numbers calls as they are made cannot do that: its numbers are timing. ``Counted`` is such a journal, put
in the place of ours, and the same crash swaps its branches' answers. The test that fails with it passes with ours.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agentflow.budget.budget import Budget
from agentflow.budget.ledger.sqlite import sqlite_ledger
from agentflow.chain import Chain
from agentflow.config import load_settings
from agentflow.runtime import Runtime
from tests.jobs.places import make_place
from tests.servers.counting import CountingServer, answer

BRANCHES, STEPS = 6, 2
Ask = Callable[[str, str], Awaitable[str]]


class Died(Exception):
    """The process ends here, in the middle of everything."""


async def body(ask: Ask, order: list[int]) -> list[list[str]]:
    """Branches side by side, each asking one thing after the other; ``order`` is whose turn it is when."""
    turn = asyncio.Condition()
    left = list(order)

    async def branch(number: int) -> list[str]:
        said: list[str] = []
        for step in range(STEPS):
            async with turn:
                await turn.wait_for(lambda: left[0] == number)
                said.append(await ask(f"branch-{number}", f"question {number}.{step}"))
                left.pop(0)
                turn.notify_all()
        return said

    return await asyncio.gather(*(branch(number) for number in range(BRANCHES)))


def right(prefix: str = "") -> list[list[str]]:
    return [[answer(f"{prefix}question {branch}.{step}") for step in range(STEPS)] for branch in range(BRANCHES)]


class Counted:
    """Replays by the number of the call: what step counters do."""

    def __init__(self) -> None:
        self._kept: dict[int, str] = {}
        self._numbers = itertools.count()

    def begin_again(self) -> None:
        self._numbers = itertools.count()

    async def ask(self, branch: str, question: str) -> str:
        number = next(self._numbers)
        if number not in self._kept:
            self._kept[number] = answer(question)
        return self._kept[number]


ORDER = [branch for _ in range(STEPS) for branch in range(BRANCHES)]
OTHER = [branch for _ in range(STEPS) for branch in reversed(range(BRANCHES))]


async def test_a_journal_of_counted_steps_swaps_answers() -> None:
    journal = Counted()
    assert await body(journal.ask, ORDER) == right()
    journal.begin_again()
    assert await body(journal.ask, OTHER) != right(), "the trap this suite is about is gone: then look again why"


async def test_our_journal_gives_every_branch_its_own_answers(tmp_path: Path, counting: CountingServer) -> None:
    place = make_place(tmp_path, counting.url)
    prefix = tmp_path.name
    for run, order in enumerate((ORDER, OTHER)):
        ledger = sqlite_ledger(tmp_path / "ledger.db")
        runtime = Runtime(load_settings(place.folder / "agentflow.toml"), ledger)
        job = await runtime.job("job", Budget(usd=1))
        chains = {f"branch-{n}": runtime.chain(f"branch-{n}", parent=job) for n in range(BRANCHES)}
        asked = 0

        async def ask(branch: str, question: str, run: int = run, chains: dict[str, Chain] = chains) -> str:
            nonlocal asked
            asked += 1
            if run == 0 and asked == BRANCHES * STEPS:
                raise Died
            return (await chains[branch].call(f"{prefix}{question}")).output

        if run == 0:
            with pytest.raises(Died):
                async with asyncio.timeout(20):
                    await body(ask, order)
        else:
            assert await body(ask, order) == right(prefix)
        await runtime.aclose()
        await ledger.aclose()
    assert all(count == (1, 1) for count in counting.counts(prefix).values())
