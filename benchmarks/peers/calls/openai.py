"""The openai SDK, of the interpreter it runs in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from openai import AsyncOpenAI

from benchmarks.peers.calling import MAX_TOKENS, MODEL, PROMPT, TIMEOUT_S, Call, run


@asynccontextmanager
async def open_client(base_url: str) -> AsyncGenerator[Call]:
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=TIMEOUT_S) as client:

        async def call() -> str | None:
            reply = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": PROMPT}], max_tokens=MAX_TOKENS
            )
            return reply.choices[0].message.content

        yield call


if __name__ == "__main__":
    run(open_client)
