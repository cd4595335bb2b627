"""A receiver of webhooks in its own process: keeps what it is sent, and answers as a test wants."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

HEARD: list[dict[str, Any]] = []
ANSWERS: list[int] = []


async def hear(request: web.Request) -> web.Response:
    HEARD.append({"headers": dict(request.headers), "body": await request.text()})
    status = ANSWERS.pop(0) if ANSWERS else 204
    return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})


async def heard(_: web.Request) -> web.Response:
    return web.json_response(HEARD)


async def answers(request: web.Request) -> web.Response:
    ANSWERS[:] = await request.json()
    HEARD.clear()
    return web.json_response({})


async def serve() -> None:
    app = web.Application()
    app.router.add_post("/hook", hear)
    app.router.add_get("/heard", heard)
    app.router.add_post("/answers", answers)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
