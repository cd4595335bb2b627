"""pydantic-ai's usage limits: one ``RunUsage`` shared by all runs. Runs in an interpreter that has pydantic-ai."""

# Type checkers see the environment of the project, which cannot have this peer.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from benchmarks.peers.asking import (
    BUDGET_CALLS,
    CALL_TOKENS,
    CLIENT_TIMEOUT_S,
    INPUT_TOKENS,
    MODEL,
    OUTPUT_TOKENS,
    PROMPT,
    Start,
    ask,
    run,
)


async def race(start: Start) -> int:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent, UsageLimitExceeded
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.usage import RunUsage, UsageLimits

    client = AsyncOpenAI(base_url=start.url, api_key="none", max_retries=0, timeout=CLIENT_TIMEOUT_S)
    agent = Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client)))
    usage = RunUsage()
    limits = UsageLimits(**{"request_limit": None, start.limit: budget(start.limit)})

    async def call() -> object:
        return await agent.run(PROMPT, usage=usage, usage_limits=limits)

    return await ask(call, lambda error: isinstance(error, UsageLimitExceeded), start.at_once)


def budget(limit: str) -> Any:
    """Ten calls in the unit of ``limit``; dollars at the price that pydantic-ai itself knows for the model."""
    if limit == "cost_limit":
        from genai_prices import Usage, calc_price

        usage = Usage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS)
        return BUDGET_CALLS * calc_price(usage, MODEL, provider_id="openai").total_price
    return {"request_limit": BUDGET_CALLS, "total_tokens_limit": BUDGET_CALLS * CALL_TOKENS}[limit]


if __name__ == "__main__":
    run(race)
