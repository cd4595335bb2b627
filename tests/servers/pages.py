"""A real web server in its own process, with pages that behave and pages that do not."""

from __future__ import annotations

import asyncio
import gzip
import io

from aiohttp import web
from PIL import Image

WAITING = web.AppKey("waiting", set[object])
ARTICLE = """<!doctype html><html><head><title>On Tides</title></head><body><nav>menu</nav><article><h1>On Tides</h1>
<p>The tide in the bay of Fundy rises by sixteen metres, more than anywhere else on Earth.</p>
<p>The moon pulls the water, and the shape of the bay makes the swing grow with every tide.</p>
</article></body></html>"""


async def article(_: web.Request) -> web.Response:
    return web.Response(text=ARTICLE, content_type="text/html")


async def dated(request: web.Request) -> web.Response:
    day, modified = request.query.get("day"), request.query.get("modified")
    said = f'<meta property="article:published_time" content="{day}T10:00:00Z">' if day else ""
    headers = {"Last-Modified": modified} if modified else {}
    return web.Response(
        text=ARTICLE.replace("<title>", f"{said}<title>{day}"), content_type="text/html", headers=headers
    )


async def latin(_: web.Request) -> web.Response:
    return web.Response(
        body="Crème brûlée is made with cream, sugar and eggs, and then torched.".encode("latin-1"),
        content_type="text/plain",
    )


async def japanese(_: web.Request) -> web.Response:
    return web.Response(
        body="これは短い文です。".encode("shift_jis"), headers={"Content-Type": "text/plain; charset=shift_jis"}
    )


async def utf8(request: web.Request) -> web.Response:
    return web.Response(
        body="naïve “quotes”".encode(), headers={"Content-Type": f"text/plain; charset={request.query['charset']}"}
    )


async def never(request: web.Request) -> web.Response:
    waiting = request.app[WAITING]
    token = object()
    waiting.add(token)
    try:
        await asyncio.Event().wait()
        raise AssertionError
    finally:
        waiting.discard(token)


async def how_many_wait(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(request.app[WAITING])} wait")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    while True:
        await response.write(b"and so on " * 10_000)


async def nowhere(_: web.Request) -> web.Response:
    return web.Response(status=302)


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "Content-Length": str(5_000_000_000)})
    await response.prepare(request)
    block = b"all work and no play makes a dull page. " * 2_000
    while True:
        await response.write(block)


async def bomb(_: web.Request) -> web.Response:
    body = gzip.compress(b"0" * 200_000_000, 9)
    return web.Response(body=body, headers={"Content-Type": "text/plain", "Content-Encoding": "gzip"})


async def image(_: web.Request) -> web.Response:
    return web.Response(body=b"\x89PNG", content_type="image/png")


async def picture(_: web.Request) -> web.Response:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(file, "PNG")
    return web.Response(body=file.getvalue(), content_type="image/png")


async def away(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": request.query["to"]})


async def serve() -> None:
    app = web.Application()
    app[WAITING] = set()
    pages = {
        "article": article,
        "dated": dated,
        "latin": latin,
        "japanese": japanese,
        "utf8": utf8,
        "never": never,
        "waiting": how_many_wait,
        "stream": stream,
        "nowhere": nowhere,
        "endless": endless,
        "bomb": bomb,
        "image": image,
        "picture": picture,
        "away": away,
    }
    for name, handler in pages.items():
        app.router.add_get(f"/{name}", handler)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
