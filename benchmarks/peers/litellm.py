"""litellm's Router with a budget for its provider. Runs in an interpreter that has litellm."""

from __future__ import annotations

import os

from benchmarks.peers.asking import BUDGET_CALLS, CALL_USD, MODEL, PROMPT, TOKEN_USD, Start, ask, run

# Read at import: without it the price list is fetched over the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


async def race(start: Start) -> int:
    from litellm import Router
    from litellm.types.router import RouterErrors

    deployment = {
        "model": f"openai/{MODEL}",
        "api_base": start.url,
        "api_key": "none",
        "input_cost_per_token": TOKEN_USD,
        "output_cost_per_token": TOKEN_USD,
    }
    budget = {"openai": {"budget_limit": BUDGET_CALLS * CALL_USD, "time_period": "1d"}}
    router = Router(
        model_list=[{"model_name": MODEL, "litellm_params": deployment}], num_retries=0, **{start.limit: budget}
    )

    async def call() -> object:
        return await router.acompletion(MODEL, messages=[{"role": "user", "content": PROMPT}])

    # The refusal is a bare ValueError: known by its words.
    words = RouterErrors.no_deployments_with_provider_budget_routing.value
    return await ask(call, lambda error: words in str(error), start.at_once)


if __name__ == "__main__":
    run(race)
