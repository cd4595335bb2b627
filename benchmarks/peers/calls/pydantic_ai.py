"""A pydantic-ai agent without tools. Runs in an interpreter that has pydantic-ai."""

# Type checkers see the environment of the project, which cannot have this peer.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from benchmarks.peers.calling import MAX_TOKENS, MODEL, PROMPT, TIMEOUT_S, Call, run


@asynccontextmanager
async def open_client(base_url: str) -> AsyncGenerator[Call]:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent, ModelSettings
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=TIMEOUT_S) as client:
        model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
        agent = Agent(model, model_settings=ModelSettings(max_tokens=MAX_TOKENS))

        async def call() -> str:
            return (await agent.run(PROMPT)).output

        yield call


if __name__ == "__main__":
    run(open_client)
