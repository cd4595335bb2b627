"""Readers of events over HTTP: how late each of many hears what happens in a job.

An event says when it was told, by the clock of the machine that worker, server and readers share; what a reader waits
is the journal, the commit, the server's look, and the way. Imports only aiohttp and the jobs' face.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True)
class Heard:
    """What readers heard: how late, in milliseconds, and of how many events."""

    p50_ms: float
    p95_ms: float
    events: int
    per_s: float


async def listen(url: str, jobs: Sequence[str], readers: int, seconds: float) -> Heard:
    """Read the jobs' events from now on, ``readers`` of them spread over the jobs, for so many seconds.

    Args:
        url: the server.
        jobs: jobs of the kind ``telling``, at work.
        readers: how many read at once, each on a connection of its own.
        seconds: how long they listen once all are there.
    """
    late: list[float] = []
    counting = asyncio.Event()

    async def read(session: aiohttp.ClientSession, job: str, here: asyncio.Event) -> None:
        async with session.get(f"{url}/v1/research/{job}/events", headers={"Accept": "text/event-stream"}) as response:
            response.raise_for_status()
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                now = time.time_ns()
                here.set()
                told = json.loads(line[6:]).get("data", {}).get("told_ns")
                if told is not None and counting.is_set():
                    late.append((now - told) / 1e6)

    connector, forever = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=forever) as session:
        heres = [asyncio.Event() for _ in range(readers)]
        tasks = [asyncio.ensure_future(read(session, jobs[n % len(jobs)], here)) for n, here in enumerate(heres)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(here.wait() for here in heres))
        counting.set()
        started = time.monotonic()
        await asyncio.wait(tasks, timeout=seconds)
        listened = time.monotonic() - started
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    broken = [end for end in ended if isinstance(end, Exception)]
    if broken:
        raise broken[0]
    cuts = statistics.quantiles(late, n=20)
    return Heard(round(cuts[9], 1), round(cuts[-1], 1), len(late), round(len(late) / listened))
