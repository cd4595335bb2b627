"""Any OpenAI-compatible server (llama-server, vLLM, gateways, OpenAI itself) over aiohttp. Imports the files beside it.

Replies are streamed, so that the time to the first token is known and a cancelled call stops the server. Only a
request that surely generated nothing is sent again: a retry here can never spend twice. What a server was asked for
and left out in silence is named in the completion, and warned of once. Next: ``wire`` (requests and replies as JSON),
``dialects`` (what each server adds), ``refusals`` (errors), ``replicas`` (several servers of one model).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from agentflow.backends.base import Dialect, Probe, ServerFacts
from agentflow.backends.dialects import described, dressed, examine, needs_words
from agentflow.backends.ignored import ignored, is_absurd, is_same_model
from agentflow.backends.refusals import broken, cause, refusal, said_in
from agentflow.backends.retrying import retried
from agentflow.backends.server_metrics import ServerMetrics
from agentflow.backends.sse import Events, parsed
from agentflow.backends.untrusted import bounded
from agentflow.backends.wire import Gathered, request_json, seconds, usage_of, written
from agentflow.errors import BackendError, BackendTimeout, ConnectionDropped
from agentflow.messages import Completion, Delta, Request, Timings, TokenUsage

_LOG: Final = logging.getLogger(__name__)
_LONGEST_BODY: Final = 32_000_000
# No server needs longer to take a connection; nothing was sent to one that does.
_CONNECT_S: Final = 10.0
_PROBE_S: Final = 3.0
# How long a stream that said it is done may take to end: its connection is used again only if it does.
_GOODBYE_S: Final = 0.1
# A server that would not say which one it is is asked again after this long.
_PAUSE_S: Final = 60.0
# It closes a connection after a stream without saying so: a call that is sent on it meanwhile is lost.
_CLOSES_AFTER_STREAMS: Final = "llama.cpp"
# Whose own name it is needs no asking.
_OPENAI: Final = "api.openai.com"


class OpenAIBackend:
    """An OpenAI-compatible server.

    Args:
        base_url: up to and including ``/v1``.
        count: counts the tokens of a reply whose server sent no usage that makes sense.
        api_key_env: the environment variable that holds the key, if one is needed.
        retries: how often a request that generated nothing is sent again, within its own time.
        stream: ask for a stream.
        dialect: what the server adds to OpenAI's API. ``auto`` finds out beside the first call that would be sent
            otherwise; until that is known the server is spoken to as a plain one.
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
        dialect: Dialect | str = "auto",
    ) -> None:
        self._base = base_url.rstrip("/")
        self._chat = URL(f"{self._base}/chat/completions")
        self._where = urlsplit(base_url).netloc
        self._is_openai = self._where == _OPENAI
        self.provider = "openai" if self._is_openai else "openai_compatible"
        self._count = count
        self._key_env = api_key_env
        self._retries = retries
        self._stream = stream
        self._dialect: Dialect | None = None
        self._ask_again_at = 0.0
        self._asking = asyncio.Lock()
        self._told: set[str] = set()
        self._session: aiohttp.ClientSession | None = None
        self._single_use = False
        if self._is_openai or dialect == "openai":
            self._dialect = "openai"
        elif dialect == "vllm" or dialect == "llamacpp":
            self._dialect = dialect

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask the server, within ``request.timeout_s`` altogether.

        A request with a ``cache_salt`` waits until the server's dialect is known, for sending it without would let
        others see what is cached; one that names the tool to be called waits too, for llama.cpp passes names over.

        Raises:
            BackendError: as the subclass that says whether it may have cost something.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(request.timeout_s):
                if self._dialect is not None or not needs_words(request) or started < self._ask_again_at:
                    return await self._retrying(model, request, tell)
                if request.cache_salt is not None or request.tool_choice.name is not None:
                    await self._learn(model)
                    return await self._retrying(model, request, tell)
                async with _beside(self._learn(model)):
                    return await self._retrying(model, request, tell)
        except TimeoutError as error:
            waited = time.monotonic() - started
            raise BackendTimeout(
                f"{self._where} gave no whole reply of '{model}' within {waited:.1f} s. "
                "Raise the model's timeout_s, or the budget's seconds."
            ) from error

    async def _retrying(self, model: str, request: Request, tell: Callable[[Delta], None] | None) -> Completion:
        return await retried(lambda: self._once(model, request, tell), self._retries, request.timeout_s)

    async def _once(self, model: str, request: Request, tell: Callable[[Delta], None] | None) -> Completion:
        started = time.monotonic()
        body = request_json(model, request)
        unsaid = dressed(body, request, self._dialect or "openai")
        if self._stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        gathered, answered = Gathered(tell, request.top_logprobs is not None), False
        try:
            async with self._open().post(
                self._chat, data=written(body), headers=self._headers(request), allow_redirects=False
            ) as response:
                answered = True
                if response.status != 200:
                    said, later = await bounded(response, _LONGEST_BODY), response.headers.get("Retry-After", "")
                    if key := self._key():
                        said = said.replace(os.fsencode(key), "…".encode())
                    raise refusal(response.status, said, later, self._where, model)
                streamed, first_s = await self._read(response, gathered, started)
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
                raise
            raise broken(error, self._where, answered=answered) from error
        except BackendError as error:
            # What a server sent may be quoted, and it was sent the key.
            if key := self._key():
                error.args = (str(error).replace(key, "…"),)
            raise
        timings = Timings(
            time.monotonic() - started,
            first_s,
            seconds(gathered.timings, "prompt_ms"),
            seconds(gathered.timings, "predicted_ms"),
        )
        if self._stream and not streamed:
            unsaid = (*unsaid, "stream")
        return self._completion(model, request, gathered, timings, unsaid)

    async def _read(
        self, response: aiohttp.ClientResponse, gathered: Gathered, started: float
    ) -> tuple[bool, float | None]:
        """Gather a reply. Returns whether it was a stream, and the seconds to the first of its content."""
        if response.content_type != "text/event-stream":
            self._add(gathered, parsed(await bounded(response, _LONGEST_BODY)))
            return False, None
        self._single_use = response.headers.get("Server") == _CLOSES_AFTER_STREAMS
        first_s, events = None, Events(self._where)
        async for block in response.content.iter_any():
            for chunk in events.of(block):
                if self._add(gathered, chunk) and first_s is None:
                    first_s = time.monotonic() - started
            if events.done:
                if self._single_use:
                    # Given back, it would be written to by the next call while the server closes it.
                    response.close()
                else:
                    await _ended(response)
                return True, first_s
        for chunk in events.rest():
            self._add(gathered, chunk)
        return True, first_s

    def _add(self, gathered: Gathered, chunk: Any) -> bool:
        if isinstance(chunk, dict) and "error" in chunk and chunk["error"]:
            raise BackendError(f"{self._where} failed while replying: {said_in(chunk)}")
        return gathered.add(chunk)

    def _completion(
        self, model: str, request: Request, gathered: Gathered, timings: Timings, unheeded: tuple[str, ...]
    ) -> Completion:
        if gathered.finish is None:
            raise ConnectionDropped(f"{self._where} ended the stream before the reply of '{model}' was whole.")
        if gathered.finish == "error":
            raise BackendError(f"{self._where} broke off the reply of '{model}' by itself. Look at the server's log.")
        text, calls = "".join(gathered.text), gathered.tool_calls()
        # Tools that are called are tokens as well, whoever counts them.
        said = text + "".join(call.name + call.arguments for call in calls)
        usage = usage_of(gathered.usage, gathered.timings)
        if usage is not None and is_absurd(usage, request, said, self._count):
            usage = None
        completion = Completion(
            text=text,
            model=gathered.model or model,
            usage=usage or self._count(request, said),
            timings=timings,
            finish_reason=gathered.finish,
            id=gathered.id,
            tool_calls=calls,
            logprobs=tuple(gathered.logprobs) or None,
            tokens=tuple(gathered.tokens) or None,
            reported_joules=gathered.joules,
        )
        unheeded = (*unheeded, *ignored(request, completion, self._count))
        if usage is None:
            unheeded = (*unheeded, "usage")
        if not is_same_model(model, completion.model):
            unheeded = (*unheeded, "model")
        if not unheeded:
            return completion
        self._warn(model, completion.model, unheeded)
        return replace(completion, ignored=unheeded)

    def _warn(self, model: str, served: str, unheeded: tuple[str, ...]) -> None:
        """Say once of each thing that the server does not heed it."""
        new = [name for name in unheeded if name not in self._told]
        if new:
            self._told.update(new)
            other = f" (it says that it serves '{served}')" if "model" in new else ""
            _LOG.warning("%s does not heed %s of requests for '%s'%s.", self._where, ", ".join(new), model, other)

    async def _learn(self, model: str | None) -> None:
        """Find out the server's dialect, once for all calls that wait for it; whatever goes wrong, later again."""
        async with self._asking:
            if self._dialect is not None or time.monotonic() < self._ask_again_at:
                return
            with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, BackendError):
                async with asyncio.timeout(_PROBE_S):
                    await self._facts(model)
            if self._dialect is None:
                self._ask_again_at = time.monotonic() + _PAUSE_S

    async def _facts(self, model: str | None) -> ServerFacts:
        facts = await examine(self._open(), self._base, model, self._headers())
        self._dialect = self._dialect or facts.dialect
        return replace(facts, dialect=self._dialect)

    async def probe(self) -> Probe:
        """Ask the server what it is, what it holds and how busy it is; never raises."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(_PROBE_S):
                facts = await self._facts(None)
        except (aiohttp.ClientError, OSError, ValueError, BackendError) as error:
            said = str(error) if isinstance(error, ValueError) else f"does not answer ({cause(error)})"
            return Probe(False, f"{self._where} {said}")
        round_trip_s = time.monotonic() - started
        if not self._is_openai:
            facts = await self._with_load(facts)
        said = described(facts)
        detail = f"{self._where} answers" + (f": {said}" if said else "")
        return Probe(True, detail, round_trip_s, facts.models, facts)

    async def _with_load(self, facts: ServerFacts) -> ServerFacts:
        metrics = ServerMetrics(self._base, api_key_env=self._key_env)
        try:
            counts = await metrics.read()
        except BackendError:
            return facts
        finally:
            await metrics.aclose()
        prompt, cached = counts.prompt_tokens, counts.cached_tokens
        share = None if not prompt or cached is None else min(cached / prompt, 1.0)
        return replace(facts, running=counts.running, waiting=counts.waiting, cached_share=share)

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
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            )
        return self._session

    def _key(self) -> str:
        return os.environ.get(self._key_env, "") if self._key_env else ""

    def _headers(self, request: Request | None = None) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        if self._single_use:
            headers["Connection"] = "close"
        if request is not None and request.key is not None:
            headers["X-Request-Id"] = request_id(request.key)
        return headers


def request_id(key: str) -> str:
    """What servers are told of an attempt's key, which itself may name tenants: half of its SHA-256, in hex digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@contextlib.asynccontextmanager
async def _beside(work: Any) -> AsyncGenerator[None]:
    """Do some work beside the body; it ends with the body at the latest, and its failure is its own."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _ended(response: aiohttp.ClientResponse) -> None:
    """Wait for a moment for the end of a stream that has said all."""
    if not response.content.at_eof():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                while await response.content.readany():
                    pass
