"""aiohttp alone: the least that a call over HTTP costs here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp

from benchmarks.peers.calling import MAX_TOKENS, MESSAGES, MODEL, TIMEOUT_S, Call, run


@asynccontextmanager
async def open_client(base_url: str) -> AsyncGenerator[Call]:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": MAX_TOKENS}
    # Its own limit of connections would else decide how many calls are out at once.
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def call() -> str:
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                reply = await response.json()
            return reply["choices"][0]["message"]["content"]

        yield call


if __name__ == "__main__":
    run(open_client)
