"""A real OpenAI-compatible server that counts: how often each prompt came, and how often its reply was sent whole.

A reply is a function of its prompt (``answer``), so a test knows which reply belongs where. Replies may be slow, fail,
or wait at a gate.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import urllib.request
from collections import defaultdict
from typing import Any

from aiohttp import web

from tests.servers.openai_server import ServerProcess

COUNTS: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
STATE: dict[str, Any] = {"delay": 0.0, "gates": {}, "fail": 0, "came": 0}


def answer(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:12]


async def chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    prompt = body["messages"][-1]["content"]
    COUNTS[prompt][0] += 1
    STATE["came"] += 1
    if STATE["fail"] > 0:
        STATE["fail"] -= 1
        return web.json_response({"error": {"message": "broken"}}, status=500)
    if STATE["delay"]:
        await asyncio.sleep(STATE["delay"])
    for name, gate in tuple(STATE["gates"].items()):
        if name in prompt:
            await gate.wait()
    text = answer(prompt)
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    reply = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    response = web.json_response(reply)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write_eof()
        COUNTS[prompt][1] += 1
    return response


async def counts(_: web.Request) -> web.Response:
    return web.json_response(COUNTS)


async def total(_: web.Request) -> web.Response:
    return web.json_response(STATE["came"])


async def settings(request: web.Request) -> web.Response:
    STATE.update(await request.json())
    return web.json_response({})


async def shut_gate(request: web.Request) -> web.Response:
    STATE["gates"][(await request.json())["gate"]] = asyncio.Event()
    return web.json_response({})


async def open_gate(request: web.Request) -> web.Response:
    STATE["gates"].pop((await request.json())["gate"]).set()
    return web.json_response({})


async def serve() -> None:
    app = web.Application(client_max_size=64_000_000)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/counts", counts)
    app.router.add_get("/total", total)
    app.router.add_post("/settings", settings)
    app.router.add_put("/gate", shut_gate)
    app.router.add_post("/gate", open_gate)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


class CountingServer:
    """The server from a test's side. It is shared: a test names its prompts after itself."""

    def __init__(self) -> None:
        self._process = ServerProcess("tests.servers.counting")
        self.url = f"{self._process.address}/v1"

    def counts(self, prefix: str = "") -> dict[str, tuple[int, int]]:
        """How often each prompt that begins so came, and was answered whole."""
        with urllib.request.urlopen(f"{self._process.address}/counts", timeout=10) as reply:
            found: dict[str, list[int]] = json.load(reply)
        return {prompt: (came, sent) for prompt, (came, sent) in found.items() if prompt.startswith(prefix)}

    def total(self) -> int:
        """How many calls came so far, of whoever."""
        with urllib.request.urlopen(f"{self._process.address}/total", timeout=10) as reply:
            return int(json.load(reply))

    def settings(self, **values: Any) -> None:
        """``delay`` in seconds of every reply, ``fail`` so many of the next."""
        self._ask("POST", "settings", values)

    def shut(self, gate: str) -> None:
        """Keep back every reply to a prompt that holds this word."""
        self._ask("PUT", "gate", {"gate": gate})

    def open(self, gate: str) -> None:
        """Let them go."""
        self._ask("POST", "gate", {"gate": gate})

    def stop(self) -> None:
        self._process.stop()

    def _ask(self, method: str, path: str, data: Any) -> None:
        body = json.dumps(data).encode()
        request = urllib.request.Request(
            f"{self._process.address}/{path}", body, {"Content-Type": "application/json"}, method=method
        )
        urllib.request.urlopen(request, timeout=10).close()


if __name__ == "__main__":
    asyncio.run(serve())
