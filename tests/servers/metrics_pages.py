"""A server of metrics pages in its own process: the pages of vLLM and llama.cpp as they look, and ones gone wrong.

``/vllm/metrics`` moves on by one recorded step at each look; the other first parts of a path say what they do.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

# Names, labels and kinds as a vLLM 0.32 server gives them; the figures of the second look are made.
VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="tinyv"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="tinyv"}} 1.0
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{{engine="0",model_name="tinyv"}} {prompt}
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{{engine="0",model_name="tinyv"}} {cached}
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="tinyv"}} {prompt}
# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{{engine="0",model_name="tinyv",source="local_compute"}} {computed}
vllm:prompt_tokens_by_source_total{{engine="0",model_name="tinyv",source="local_cache_hit"}} {cached}
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="tinyv"}} {output}
# TYPE vllm:estimated_flops_per_gpu_total counter
vllm:estimated_flops_per_gpu_total{{engine="0",model_name="tinyv"}} {flop}
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{{engine="0",le="1.0",model_name="tinyv"}} 60.0
vllm:iteration_tokens_total_bucket{{engine="0",le="+Inf",model_name="tinyv"}} {steps}
vllm:iteration_tokens_total_count{{engine="0",model_name="tinyv"}} {steps}
vllm:iteration_tokens_total_sum{{engine="0",model_name="tinyv"}} 490.0
# TYPE vllm:inter_token_latency_seconds histogram
vllm:inter_token_latency_seconds_bucket{{engine="0",le="+Inf",model_name="tinyv"}} {gaps}
vllm:inter_token_latency_seconds_count{{engine="0",model_name="tinyv"}} {gaps}
vllm:inter_token_latency_seconds_sum{{engine="0",model_name="tinyv"}} {gap_s}
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.2e+09
"""

FIRST = {
    "running": 0.0, "prompt": 1264.0, "cached": 896.0, "computed": 368.0, "output": 122.0, "flop": 0.0, "steps": 122.0,
    "gaps": 114.0, "gap_s": 2.0,
}  # fmt: skip
SECOND = {
    "running": 4.0, "prompt": 3264.0, "cached": 1396.0, "computed": 1868.0, "output": 922.0, "flop": 5e12,
    "steps": 322.0, "gaps": 906.0, "gap_s": 9.92,
}  # fmt: skip

LLAMACPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 7
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 5
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 6
# TYPE llamacpp:tokens_predicted_seconds_total counter
llamacpp:tokens_predicted_seconds_total 0.012
# TYPE llamacpp:n_decode_total counter
llamacpp:n_decode_total 6
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 0
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 0
# TYPE llamacpp:n_busy_slots_per_decode gauge
llamacpp:n_busy_slots_per_decode 1.5
"""

LOOKS = {"vllm": 0}


async def page(request: web.Request) -> web.StreamResponse:
    kind = request.match_info["kind"]
    if kind == "vllm":
        LOOKS["vllm"] += 1
        return web.Response(text=VLLM.format(**(FIRST if LOOKS["vllm"] == 1 else SECOND)))
    if kind == "missing":
        return web.Response(status=404)
    if kind == "moved":
        return web.Response(status=302, headers={"Location": "/vllm/metrics"})
    if kind == "slow":
        await asyncio.Event().wait()
    if kind == "keyed":
        known = request.headers.get("Authorization") == "Bearer the-key"
        return web.Response(text=LLAMACPP, status=200 if known else 401)
    if kind == "endless":
        return await endless(request)
    pages = {
        "garbage": '# TYPE a counter\na{b="c 1 2 3 }}}\x00',
        "html": "<html>",
        "other": "up 1\n",
        "llamacpp": LLAMACPP,
    }
    return web.Response(text=pages[kind])


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"llamacpp:prompt_tokens_total 7\n" * 10_000)


async def serve() -> None:
    app = web.Application()
    app.router.add_get("/{kind}/metrics", page)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
