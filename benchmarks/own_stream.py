"""What agentflow adds to the time to the first token, against aiohttp reading the same stream in the same process.

In turns, so that what else the machine does is the same for both. ``python -m benchmarks.own_stream ADDRESS CALLS``
prints JSON: milliseconds from asking to the first text, the medians of so many calls each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import aiohttp

from agentflow import Flow
from agentflow.chain import Chain
from benchmarks.own_call import BUDGET, REQUEST, settings
from benchmarks.peers.calling import MAX_TOKENS, MESSAGES, MODEL

# Late enough that the request is out before the reply comes, as it is with every model.
DELAY_MS = 5
BODY = {"model": MODEL, "messages": MESSAGES, "max_tokens": MAX_TOKENS, "stream": True}


async def bare(session: aiohttp.ClientSession, url: str) -> float:
    """Seconds to the first text of a stream that aiohttp reads line by line."""
    started, first = time.perf_counter(), 0.0
    async with session.post(url, json=BODY | {"stream_options": {"include_usage": True}}) as response:
        async for line in response.content:
            data = line.strip().removeprefix(b"data: ")
            if not data or data == b"[DONE]":
                continue
            chunk: dict[str, Any] = json.loads(data)
            if not first and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - started
    return first


async def ours(chain: Chain) -> float:
    """Seconds to the first text of a chain's stream."""
    started, first = time.perf_counter(), 0.0
    async with chain.stream(REQUEST) as stream:
        async for text in stream:
            if not first and text:
                first = time.perf_counter() - started
    return first


async def measure(address: str, calls: int) -> dict[str, float]:
    base_url = f"{address}/{DELAY_MS}/v1"
    flow = Flow(settings(base_url, stream=True))
    async with aiohttp.ClientSession() as session, flow, flow.chain("benchmark", budget=BUDGET) as chain:
        times = [
            (await bare(session, f"{base_url}/chat/completions"), await ours(chain)) for _ in range(calls // 10 + calls)
        ][calls // 10 :]
    alone, through = (statistics.median(column) * 1000 for column in zip(*times, strict=True))
    return {"aiohttp_ttft_ms": alone, "agentflow_ttft_ms": through, "ttft_added_ms": through - alone}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("calls", type=int)
    asked = parser.parse_args()
    print(json.dumps(asyncio.run(measure(asked.address, asked.calls))))
