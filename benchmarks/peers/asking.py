"""What every peer's race has in common: the budget, the price of a call, and N callers asking at once.

Runs in the peer's own interpreter: imports only the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

BUDGET_CALLS = 10
INPUT_TOKENS = OUTPUT_TOKENS = 512
# Dollars. A power of two, so that ten calls are exactly the budget however a peer adds up its floats.
TOKEN_USD = 2.0**-20
CALL_TOKENS = INPUT_TOKENS + OUTPUT_TOKENS
CALL_USD = CALL_TOKENS * TOKEN_USD
# Seconds, to connect as well: a busy machine may be slow to take a thousand connections, and no race is one of retries.
CLIENT_TIMEOUT_S = 300.0
MODEL = "gpt-4o"
PROMPT = "What does this cost?"


@dataclass(frozen=True, slots=True)
class Start:
    """One race as its process is told of it: a server, which of the peer's limits, and how many callers."""

    url: str
    limit: str
    at_once: int


def calls_asked(at_once: int) -> int:
    """How many calls are tried in all: ten budgets, and never fewer than one for each caller."""
    return max(10 * BUDGET_CALLS, at_once)


async def ask(call: Callable[[], Awaitable[object]], refuses: Callable[[Exception], bool], at_once: int) -> int:
    """Make the calls, ``at_once`` at a time: a caller asks again once it is answered, and gives up once it is refused.

    Returns how many were answered. A failure that ``refuses`` does not know as the limit's own ends the race.
    """
    turns = iter(range(calls_asked(at_once)))
    answered = 0

    async def caller() -> None:
        nonlocal answered
        for _ in turns:
            try:
                await call()
                answered += 1
            except Exception as error:
                if not refuses(error):
                    raise
                return

    async with asyncio.TaskGroup() as callers:
        for _ in range(at_once):
            callers.create_task(caller())
    return answered


def run(race: Callable[[Start], Awaitable[int]]) -> None:
    """The body of a peer's process: ``python -m benchmarks.peers.PEER URL LIMIT AT_ONCE`` prints JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("limit")
    parser.add_argument("at_once", type=int)
    start = Start(**vars(parser.parse_args()))

    async def main() -> int:
        return await race(start)

    print(json.dumps({"answered": asyncio.run(main())}))
