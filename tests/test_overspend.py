"""The race of budgets: that it can be won, that it can be lost, and that an absent peer has no figure."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.overspend import INSPECT_AI, Peer, PeerNotInstalled, Race, RaceFailed, as_json, race
from benchmarks.peers.asking import BUDGET_CALLS, ask, calls_asked


class Refused(Exception):
    pass


class CountedBudget:
    """A budget that counts a call either before it leaves, or after its answer, as the peers do."""

    def __init__(self, *, held_before: bool) -> None:
        self.spent = 0
        self.billed = 0
        self._held_before = held_before

    async def call(self) -> None:
        if self.spent >= BUDGET_CALLS:
            raise Refused
        self.spent += self._held_before
        self.billed += 1
        await asyncio.sleep(0)
        self.spent += not self._held_before


def refused(error: Exception) -> bool:
    return isinstance(error, Refused)


@pytest.mark.parametrize("at_once", [1, 10, 100, 1000])
async def test_a_budget_held_before_the_call_wins_the_race(at_once: int) -> None:
    budget = CountedBudget(held_before=True)
    assert await ask(budget.call, refused, at_once) == budget.billed == BUDGET_CALLS


@pytest.mark.parametrize(("at_once", "billed"), [(1, 10), (100, 100), (1000, 1000)])
async def test_a_budget_counted_after_the_answer_loses_it(at_once: int, billed: int) -> None:
    budget = CountedBudget(held_before=False)
    await ask(budget.call, refused, at_once)
    assert budget.billed == billed


async def test_without_a_budget_every_call_is_made() -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1

    assert await ask(call, refused, 7) == calls == calls_asked(7)


async def test_a_failure_that_is_no_refusal_ends_the_race() -> None:
    async def call() -> None:
        raise ConnectionError

    with pytest.raises(ExceptionGroup):
        await ask(call, refused, 3)


@pytest.mark.parametrize("python", [sys.executable, "/nowhere/python"])
async def test_a_peer_that_is_not_installed_has_no_figure(python: str) -> None:
    absent = Peer("absent", "no-such-distribution-of-any-peer", ("limit",), (1,))
    with pytest.raises(PeerNotInstalled, match="no-such-distribution"):
        await race(absent, "limit", 1, python=Path(python))


async def test_a_peer_whose_process_fails_has_no_figure() -> None:
    here = Peer("absent", "pytest", ("limit",), (1,))
    with pytest.raises(RaceFailed, match=r"benchmarks\.peers\.absent"):
        await race(here, "limit", 1, python=Path(sys.executable))


def test_json_has_ratios_by_peer_limit_and_callers() -> None:
    races = [
        Race("litellm", "1", "provider_budget_config", 10, admitted=20, answered=20),
        Race(INSPECT_AI.name, "2", "token_limit", 50, admitted=50, answered=10),
    ]
    assert as_json(races) == {
        "litellm_overspend_ratio_10": 2.0,
        "litellm": {"version": "1", "provider_budget_config": {"10": 2.0}},
        "inspect_ai": {"version": "2", "token_limit": {"50": 5.0}},
    }
