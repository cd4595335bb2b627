"""httpx alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx

from benchmarks.peers.calling import MAX_TOKENS, MESSAGES, MODEL, TIMEOUT_S, Call, run


@asynccontextmanager
async def open_client(base_url: str) -> AsyncGenerator[Call]:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": MAX_TOKENS}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as client:

        async def call() -> str:
            response = await client.post(f"{base_url}/chat/completions", json=body)
            return response.json()["choices"][0]["message"]["content"]

        yield call


if __name__ == "__main__":
    run(open_client)
