"""inspect_ai's scoped limits around all calls. Runs in an interpreter that has inspect_ai."""

# Type checkers see the environment of the project, which cannot have this peer.
# pyright: reportMissingImports=false

from __future__ import annotations

from benchmarks.peers.asking import (
    BUDGET_CALLS,
    CALL_TOKENS,
    CALL_USD,
    CLIENT_TIMEOUT_S,
    MODEL,
    PROMPT,
    TOKEN_USD,
    Start,
    ask,
    run,
)

DEFAULT_CONNECTIONS = "_default_connections"


async def race(start: Start) -> int:
    from inspect_ai.model import GenerateConfig, ModelCost, ModelInfo, get_model, set_model_info
    from inspect_ai.util import LimitExceededError, cost_limit, token_limit, turn_limit

    name = f"openai-api/loopback/{MODEL}"
    million = TOKEN_USD * 1_000_000
    price = ModelCost(input=million, output=million, input_cache_write=million, input_cache_read=million)
    set_model_info(name, ModelInfo(cost=price))
    # Its own cap on connections would otherwise decide how many calls are out at once; that is raced too.
    limit = start.limit.removesuffix(DEFAULT_CONNECTIONS)
    connections = start.at_once if limit == start.limit else None
    config = GenerateConfig(max_connections=connections, max_retries=0)
    model = get_model(name, base_url=start.url, api_key="none", config=config, client_timeout=CLIENT_TIMEOUT_S)
    limits = {
        "token_limit": lambda: token_limit(BUDGET_CALLS * CALL_TOKENS),
        "cost_limit": lambda: cost_limit(BUDGET_CALLS * CALL_USD),
        "turn_limit": lambda: turn_limit(BUDGET_CALLS),
    }
    with limits[limit]():
        return await ask(
            lambda: model.generate(PROMPT), lambda error: isinstance(error, LimitExceededError), start.at_once
        )


if __name__ == "__main__":
    run(race)
