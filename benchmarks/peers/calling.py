"""What every client's turn has in common: one call after another for its CPU time, then many at once.

Runs in the client's own interpreter: imports only the standard library. A client is a function that opens it; what it
gives makes one call. Every client sends the same question to the same model, and reads the reply's text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

MODEL = "gpt-4o"
PROMPT = "What does this cost?"
MESSAGES = [{"role": "user", "content": PROMPT}]
MAX_TOKENS = 256
# Seconds: no call of a client that is swamped by 200 callers may fail for it.
TIMEOUT_S = 300.0
AT_ONCE_DELAY_MS = 50

Call = Callable[[], Awaitable[object]]
Open = Callable[[str], AbstractAsyncContextManager[Call]]


async def cpu_ms(call: Call, calls: int) -> float:
    """Milliseconds of this process's CPU time for a call, one after another, after a tenth as many to warm up."""
    for _ in range(calls // 10):
        await call()
    started = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - started) / calls * 1000


async def at_once(call: Call, callers: int, seconds: float) -> tuple[float, float]:
    """Many callers, each asking again once it is answered, until ``seconds`` have passed and all are answered.

    Returns:
        Calls a second, and milliseconds of CPU time for a call. The first call of each caller, which connects, is
        not among them.
    """

    async def caller(until: float) -> int:
        calls = 0
        while time.monotonic() < until:
            await call()
            calls += 1
        return calls

    async with asyncio.TaskGroup() as connecting:
        for _ in range(callers):
            connecting.create_task(_ignored(call))
    started, cpu_started = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caller(started + seconds)) for _ in range(callers)]
    took, cpu_s = time.monotonic() - started, time.process_time() - cpu_started
    calls = sum(task.result() for task in tasks)
    return calls / took, cpu_s / calls * 1000


async def _ignored(call: Call) -> None:
    await call()


def run(open_client: Open) -> None:
    """The body of a client's process: ``python -m MODULE ADDRESS CALLS CALLERS SECONDS`` prints JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("calls", type=int)
    parser.add_argument("callers", type=int)
    parser.add_argument("seconds", type=float)
    asked = parser.parse_args()

    async def main() -> dict[str, float]:
        async with open_client(f"{asked.address}/0/v1") as call:
            alone = await cpu_ms(call, asked.calls)
        async with open_client(f"{asked.address}/{AT_ONCE_DELAY_MS}/v1") as call:
            calls_per_s, crowded = await at_once(call, asked.callers, asked.seconds)
        return {"cpu_ms": alone, "calls_per_s": calls_per_s, "cpu_ms_at_once": crowded}

    print(json.dumps(asyncio.run(main())))
