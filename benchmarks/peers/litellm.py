"""litellm's Router with a budget for its provider. Runs in an interpreter that has litellm."""

from __future__ import annotations

import os

from benchmarks.peers.asking import BUDGET_CALLS, CALL_USD, CLIENT_TIMEOUT_S, MODEL, PROMPT, TOKEN_USD, Start, ask, run

# Read at import: without it the price list is fetched over the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


async def race(start: Start) -> int:
    from litellm.router import Router
    from litellm.types.router import RouterErrors
    from litellm.types.utils import BudgetConfig

    deployment = {
        "model": f"openai/{MODEL}",
        "api_base": start.url,
        "api_key": "none",
        "max_retries": 0,
        "timeout": CLIENT_TIMEOUT_S,
        "input_cost_per_token": TOKEN_USD,
        "output_cost_per_token": TOKEN_USD,
    }
    budget = BudgetConfig(max_budget=BUDGET_CALLS * CALL_USD, budget_duration="1d")
    router = Router(
        model_list=[{"model_name": MODEL, "litellm_params": deployment}],
        num_retries=0,
        provider_budget_config={"openai": budget},
    )

    async def call() -> object:
        return await router.acompletion(MODEL, messages=[{"role": "user", "content": PROMPT}])

    # The refusal is a bare ValueError: known by its words.
    words = RouterErrors.no_deployments_with_provider_budget_routing.value
    return await ask(call, lambda error: words in str(error), start.at_once)


if __name__ == "__main__":
    run(race)
