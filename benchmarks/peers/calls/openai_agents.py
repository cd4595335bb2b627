"""An agent of openai-agents without tools, its tracing off. Runs in an interpreter that has openai-agents."""

# Type checkers see the environment of the project, which cannot have this peer.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from benchmarks.peers.calling import MAX_TOKENS, MODEL, PROMPT, TIMEOUT_S, Call, run


@asynccontextmanager
async def open_client(base_url: str) -> AsyncGenerator[Call]:
    from openai import AsyncOpenAI

    from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled

    # Its traces would go to a server on the internet.
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=TIMEOUT_S) as client:
        model = OpenAIChatCompletionsModel(MODEL, client)
        agent = Agent(name="benchmark", model=model, model_settings=ModelSettings(max_tokens=MAX_TOKENS))

        async def call() -> str:
            return (await Runner.run(agent, PROMPT)).final_output

        yield call


if __name__ == "__main__":
    run(open_client)
