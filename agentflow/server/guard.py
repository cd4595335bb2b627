"""The guard around the app: what no client may send, headers on all that goes back, no traceback. Plain ASGI.

Header bytes and the time they take are bounded below it, by ``protocol``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.exceptions import HTTPException

from agentflow.server.problems import HEADERS, INTERNAL, INVALID, UNAVAILABLE, Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"accelerometer=(), camera=(), geolocation=(), microphone=()"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
# Encoded slashes, backslashes, NULs and dots: nothing of ours is called so, and proxies read them differently.
_TRICKS: Final = re.compile(rb"%(?:2f|5c|00|2e)|[\x00-\x20\\\x7f]|/\.{1,2}(?:/|$)|//", re.IGNORECASE)
_MOST_HEADERS: Final = 64
# Bytes a second that a body must bring on the whole, once its first pause is used up.
_SLOWEST: Final = 1_024
_log = logging.getLogger("agentflow.server")

FULL: Final = "agentflow.full"
"""In the state of a request's connection, it says that there are too many of them."""
Answered = Callable[[Scope, int, float], None]
"""Told of each request: what it was, the status of its response, and the seconds until that began."""


class Guard:
    """Lets requests through that are within bounds, marks every response, and tells of it.

    Args:
        app: what it guards.
        pause_s: seconds that may pass between two parts of a body.
        header_bytes: of all headers together, at most.
        answered: told of each request.
    """

    def __init__(self, app: App, pause_s: float, header_bytes: int, answered: Answered) -> None:
        self._app = app
        self._pause_s = pause_s
        self._header_bytes = header_bytes
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        request_id = secrets.token_hex(8)

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _marked(message.get("headers", ()), request_id, scope)
                self._answered(scope, status, time.perf_counter() - began)
            await send(message)

        problem = _refused(scope, self._header_bytes)
        if problem is None:
            try:
                await self._app(scope, _patient(receive, self._pause_s), marked)
                return
            except Exception as error:
                # What went wrong inside is for the log alone.
                _log.error("request %s failed: %s", request_id, type(error).__name__, exc_info=error)
                problem = Problem(INTERNAL, f"This is a defect. Quote the request's id, {request_id}.")
        if not status:
            # What is left of the request is not read: the connection cannot be used again.
            problem.headers = {**problem.headers, "Connection": "close"}
            await problem.response()(scope, receive, marked)


def _refused(scope: Scope, header_bytes: int) -> Problem | None:
    """What is wrong with a request before its body is read."""
    if scope.get("state", {}).get(FULL):
        return Problem(UNAVAILABLE, "The server has as many connections as it takes. Ask again in a moment.", 1.0)
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    names = [name for name, _ in headers]
    if _TRICKS.search(scope.get("raw_path") or b""):
        return Problem(INVALID, "The path holds characters that no path of this API has. Check the address.")
    if len(headers) > _MOST_HEADERS:
        return Problem(HEADERS, f"The request has {len(headers)} headers; the most is {_MOST_HEADERS}.")
    size = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    if size + sum(len(name) + len(value) for name, value in headers) > header_bytes:
        return Problem(HEADERS, f"Address and headers have more than {header_bytes:,} bytes together. Send less.")
    if names.count(b"host") != 1 or names.count(b"content-length") > 1 or names.count(b"authorization") > 1:
        return Problem(INVALID, "A header that may stand once is missing or stands twice. Send each once.")
    if b"transfer-encoding" in names and b"content-length" in names:
        return Problem(INVALID, "Content-Length and Transfer-Encoding exclude each other. Send one of them.")
    return None


def _patient(receive: Receive, pause_s: float) -> Receive:
    """Waits so long for the next part of a body, and for all of it so long and as its size takes at the slowest.

    Whether the client has gone may be waited for for ever.
    """
    whole, left_s = False, pause_s

    async def patient() -> Message:
        nonlocal whole, left_s
        if whole:
            return await receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(left_s, pause_s)):
                message = await receive()
        except TimeoutError:
            detail = f"The body came too slowly: send it without pauses of {pause_s:g} s"
            raise HTTPException(408, detail, {"Connection": "close"}) from None
        left_s += len(message.get("body", b"")) / _SLOWEST - (time.monotonic() - began)
        whole = not message.get("more_body", False)
        return message

    return patient


def _marked(headers: Any, request_id: str, scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers of a response, with those that every response has; what the app set itself stays."""
    made = list(headers)
    present = {name.lower() for name, _ in made}
    wanted = (*SECURITY, _STRICT_TRANSPORT) if scope.get("scheme") == "https" else SECURITY
    made.extend(pair for pair in wanted if pair[0] not in present)
    made.append((b"x-request-id", request_id.encode()))
    return made
