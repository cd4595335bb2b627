"""Any OpenAI-compatible server (llama-server, vLLM, gateways, OpenAI itself) over aiohttp. Imports wire, base, errors.

Replies are streamed, so that the time to the first token is known and a cancelled call stops the server. Only a
request that surely generated nothing is sent again: a retry here can never spend twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from pydantic_core import from_json
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from agentflow.backends.base import Probe
from agentflow.backends.wire import Gathered, request_json, seconds, usage_of
from agentflow.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BadReply,
    ConnectionDropped,
    ContextOverflow,
    RequestRejected,
)
from agentflow.messages import Completion, Delta, Request, Timings, TokenUsage

_LONGEST_LINE = 1_000_000
_LONGEST_BODY = 32_000_000
_LONGEST_WAIT_S = 8.0
_CONTEXT = re.compile(r"context|too long|maximum.{0,20}length|exceed_context", re.IGNORECASE)
_SECRET = re.compile(r"(sk-|Bearer\s+)[\w.\-]+", re.IGNORECASE)
_PROBE_S = 3.0


class OpenAIBackend:
    """An OpenAI-compatible server.

    Args:
        base_url: up to and including ``/v1``.
        count: counts the tokens of a reply whose server sent no usage that makes sense.
        api_key_env: the environment variable that holds the key, if one is needed.
        retries: how often a request that generated nothing is sent again, within its own time.
        stream: ask for a stream.
    """

    in_process = False

    def __init__(
        self,
        base_url: str,
        count: Callable[[Request, str], TokenUsage],
        *,
        api_key_env: str | None = None,
        retries: int = 2,
        stream: bool = True,
    ) -> None:
        self.provider = "openai" if "api.openai.com" in base_url else "openai_compatible"
        self._base = base_url.rstrip("/")
        self._where = urlsplit(base_url).netloc
        self._count = count
        self._key_env = api_key_env
        self._retries = retries
        self._stream = stream
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask the server, within ``request.timeout_s`` altogether.

        Raises:
            BackendError: as the subclass that says whether it may have cost something.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._retrying(model, request, tell)
        except TimeoutError as error:
            waited = time.monotonic() - started
            raise BackendTimeout(
                f"{self._where} gave no whole reply of '{model}' within {waited:.1f} s. "
                "Raise the model's timeout_s, or the budget's seconds."
            ) from error

    async def _retrying(self, model: str, request: Request, tell: Callable[[Delta], None] | None) -> Completion:
        failed: BackendUnavailable | None = None
        try:
            return await self._once(model, request, tell)
        except BackendUnavailable as error:
            failed = error

        # Only a call that has failed pays for what keeps count of retries; its first failure is the first it counts.
        async def again() -> Completion:
            nonlocal failed
            if failed is not None:
                first, failed = failed, None
                raise first
            return await self._once(model, request, tell)

        return await self._attempts()(again)

    async def _once(self, model: str, request: Request, tell: Callable[[Delta], None] | None) -> Completion:
        started = time.monotonic()
        body = request_json(model, request)
        if self._stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        gathered, first_s, connected = Gathered(tell), None, False
        try:
            async with self._open().post(
                f"{self._base}/chat/completions", json=body, headers=self._headers()
            ) as response:
                connected = True
                await self._refuse(response, model)
                if response.content_type == "text/event-stream":
                    lines = _Lines(self._where)
                    async for block in response.content.iter_any():
                        for chunk in self._events(lines.of(block)):
                            if gathered.add(chunk) and first_s is None:
                                first_s = time.monotonic() - started
                    for chunk in self._events(lines.rest()):
                        gathered.add(chunk)
                else:
                    gathered.add(_json(await _bounded(response)))
        except aiohttp.ClientConnectorError as error:
            raise BackendUnavailable(
                f"{self._where} does not answer ({_cause(error)}). Is the server running?"
            ) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            when = "in the middle of its reply" if connected else "before it replied"
            raise ConnectionDropped(f"{self._where} closed the connection {when}. Look at the server's log.") from error
        return self._completion(model, request, gathered, time.monotonic() - started, first_s)

    def _completion(
        self, model: str, request: Request, gathered: Gathered, total_s: float, first_s: float | None
    ) -> Completion:
        if gathered.finish is None:
            raise ConnectionDropped(f"{self._where} ended the stream before the reply of '{model}' was whole.")
        text = "".join(gathered.text)
        usage = usage_of(gathered.usage) or self._count(request, text)
        timings = Timings(
            total_s,
            first_s,
            seconds(gathered.timings, "prompt_ms"),
            seconds(gathered.timings, "predicted_ms"),
        )
        return Completion(
            text=text,
            model=gathered.model or model,
            usage=usage,
            timings=timings,
            finish_reason=gathered.finish,
            id=gathered.id,
            tool_calls=gathered.tool_calls(),
            logprobs=tuple(gathered.logprobs) or None,
            reported_joules=gathered.joules,
        )

    def _events(self, lines: Iterable[bytes]) -> Iterator[Any]:
        """The JSON of each server-sent event."""
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                continue
            chunk = _json(data)
            if isinstance(chunk, dict) and "error" in chunk:
                raise BackendError(f"{self._where} failed while replying: {_said(chunk)}")
            yield chunk

    async def _refuse(self, response: aiohttp.ClientResponse, model: str) -> None:
        """Raise what a status other than 200 means."""
        status = response.status
        if status == 200:
            return
        said = _said(_json_or_text(await _bounded(response)))
        told = f"{self._where} answered {status} for '{model}': {said}"
        if status in (502, 504):
            # A gateway says so of a server that may have generated everything before it was lost.
            raise ConnectionDropped(f"{told}. What it cost is not known.")
        if status in (429, 503):
            error = BackendUnavailable(f"{told}. Try later, or another rung.")
            error.retry_after_s = _retry_after(response)
            raise error
        if status in (400, 413) and _CONTEXT.search(said):
            raise ContextOverflow(f"{told}. Shorten the prompt, or name a model with a longer context.")
        if status in (401, 403):
            raise RequestRejected(f"{told}. Set the key in the variable named by api_key_env.")
        if 400 <= status < 500:
            raise RequestRejected(f"{told}. Check the model's name and base_url.")
        raise BackendError(f"{told}. Look at the server's log.")

    async def probe(self) -> Probe:
        """Ask for the list of models; never raises."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(_PROBE_S):
                async with self._open().get(f"{self._base}/models", headers=self._headers()) as response:
                    if response.status != 200:
                        return Probe(False, f"{self._where} answers {response.status}")
                    data: Any = _json(await _bounded(response))
            entries: list[Any] = data.get("data", [])
            names = tuple(str(entry["id"]) for entry in entries)
            return Probe(True, f"{self._where} answers", time.monotonic() - started, names)
        except (
            aiohttp.ClientError,
            OSError,
            TimeoutError,
            BackendError,
            AttributeError,
            LookupError,
            TypeError,
        ) as error:
            return Probe(False, f"{self._where} does not answer ({_cause(error)})")

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            # How many calls are out at once is for the cascade to say, and no model server keeps its state in cookies.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self._key_env) if self._key_env else None
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _attempts(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(BackendUnavailable),
            stop=stop_after_attempt(self._retries + 1),
            wait=_wait,
            reraise=True,
        )


class _Lines:
    """Blocks of a stream as whole lines; what is left of the last one waits for the next block."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._waiting = b""

    def of(self, block: bytes) -> list[bytes]:
        """The lines that end in this block."""
        *lines, self._waiting = (self._waiting + block).split(b"\n")
        if len(self._waiting) > _LONGEST_LINE:
            raise BadReply(f"{self._where} sent a line of over {_LONGEST_LINE:,} bytes.")
        return lines

    def rest(self) -> list[bytes]:
        """A last line that nothing ended."""
        return [self._waiting]


_backoff = wait_exponential_jitter(multiplier=0.2, max=_LONGEST_WAIT_S)


def _wait(state: RetryCallState) -> float:
    """The server's own Retry-After, bounded, else exponential with jitter."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, BackendUnavailable) else None
    return _backoff(state) if asked is None else min(asked, _LONGEST_WAIT_S)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"\d{1,6}(\.\d+)?", value) else None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for block in response.content.iter_chunked(65536):
        body += block
        if len(body) > _LONGEST_BODY:
            raise BadReply(f"The server's reply is larger than {_LONGEST_BODY:,} bytes.")
    return bytes(body)


def _json(data: bytes) -> Any:
    try:
        # Three times as fast as the standard library.
        return from_json(data)
    except ValueError:
        return _lenient_json(data)


def _lenient_json(data: bytes) -> Any:
    """Also what is no Unicode: half a character in a chunk of its own."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadReply(f"The server sent something that is not JSON: {data[:80]!r}.") from error


def _json_or_text(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def _said(body: Any) -> str:
    """An error body as one short printable line without keys."""
    found = body
    while isinstance(found, dict):
        inner = cast("dict[str, Any]", found)
        found = inner.get("error") or inner.get("message") or inner.get("detail") or json.dumps(inner)
    line = "".join(c if c.isprintable() else " " for c in str(found))
    return _SECRET.sub("…", " ".join(line.split()))[:200] or "nothing"


def _cause(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    number = getattr(inner, "errno", None)
    return os.strerror(number) if isinstance(number, int) else type(inner).__name__
