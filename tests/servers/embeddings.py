"""A real OpenAI-compatible embeddings server in its own process: hashed bags of words, so shared words are near.

The model's name chooses how it behaves: "words" is sound, "reversed" sends its rows in another order, "short" loses
one, "ragged" gives them different lengths, "nan", "garbage", "failing" and "half" are what they say. ``GET /asked``
tells the sizes of the batches so far and the last authorisation.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

from aiohttp import web

DIMENSIONS = 256
ASKED: dict[str, Any] = {"batches": [], "authorization": None}


def vector(text: str) -> list[float]:
    counts = [0.0] * DIMENSIONS
    for word in text.lower().split():
        counts[zlib.crc32(word.encode()) % DIMENSIONS] += 1.0
    return counts


async def embeddings(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    model, texts = body["model"], body["input"]
    ASKED["batches"].append(len(texts))
    ASKED["authorization"] = request.headers.get("Authorization")
    if model == "failing":
        return web.json_response({"error": {"message": "overloaded"}}, status=503)
    if model == "garbage":
        return web.Response(text="<html>", content_type="text/html")
    rows = [{"object": "embedding", "index": place, "embedding": vector(text)} for place, text in enumerate(texts)]
    if model == "reversed":
        rows.reverse()
    elif model == "short":
        rows.pop()
    elif model == "ragged":
        rows[0]["embedding"] = [1.0]
    elif model == "nan":
        rows[0]["embedding"] = [float("nan")] * DIMENSIONS
    reply = json.dumps(
        {"object": "list", "data": rows, "model": model, "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    )
    if model == "half":
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(reply))})
        await response.prepare(request)
        await response.write(reply[: len(reply) // 2].encode())
        assert request.transport is not None
        request.transport.close()
        return response
    return web.Response(text=reply, content_type="application/json")


async def asked(_: web.Request) -> web.Response:
    return web.json_response(ASKED)


async def serve() -> None:
    app = web.Application(client_max_size=64_000_000)
    app.router.add_post("/v1/embeddings", embeddings)
    app.router.add_get("/asked", asked)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
