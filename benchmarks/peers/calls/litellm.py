"""litellm's acompletion."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from benchmarks.peers.calling import MAX_TOKENS, MESSAGES, MODEL, TIMEOUT_S, Call, run

# Read at import: without it the price list is fetched over the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_MODE"] = "PRODUCTION"


@asynccontextmanager
async def open_client(base_url: str) -> AsyncGenerator[Call]:
    import litellm

    litellm.suppress_debug_info = True

    async def call() -> object:
        reply = await litellm.acompletion(
            model=f"openai/{MODEL}", messages=MESSAGES, max_tokens=MAX_TOKENS, api_base=base_url, api_key="none",
            num_retries=0, max_retries=0, timeout=TIMEOUT_S,
        )  # fmt: skip
        return reply.choices[0].message.content  # pyright: ignore[reportAttributeAccessIssue]

    yield call


if __name__ == "__main__":
    run(open_client)
