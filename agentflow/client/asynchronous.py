"""The client for event loops. Imports calls, stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from agentflow.client import calls
from agentflow.client.calls import TIMEOUT, TRIES, WAIT_S, Call
from agentflow.client.stream import Broken, Reading
from agentflow.errors import JobFailed, JobStateConflict
from agentflow.jobs.job import JobBudget, JobEvent, JobState
from agentflow.research.report import Claim
from agentflow.server.research.models import (
    BatchView,
    Estimate,
    PlanChoice,
    ResearchPage,
    ResearchRequest,
    ResearchResult,
    ResearchView,
    SourceView,
    SpendView,
    Submitted,
)

Value = TypeVar("Value")


class AsyncClient:
    """A server's jobs, from an event loop.

    Args:
        url: where the server is, as ``http://127.0.0.1:8321``.
        key: one made with ``agentflow keys create``; none for a server of this machine without keys.
        http: an httpx client of your own, for proxies, certificates or tests; it is yours to close.

    Example:
        >>> async with AsyncClient("http://127.0.0.1:8321") as client:                       # doctest: +SKIP
        ...     job = await client.submit("What limits inference?", sources={"urls": ["https://example.org"]})
        ...     print((await client.result(job.id)).output)
    """

    def __init__(self, url: str, key: str | None = None, *, http: httpx.AsyncClient | None = None) -> None:
        self._mine = http is None
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT, transport=httpx.AsyncHTTPTransport(retries=2))
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def submit(
        self, query: str | ResearchRequest, *, idempotency_key: str | None = None, **fields: Any
    ) -> Submitted:
        """Submit a job.

        Args:
            query: the question, or a whole request.
            idempotency_key: the same key with the same request gives the same job, for 24 hours.
            fields: of ``ResearchRequest``: effort, budget, sources, webhook, metadata ...

        Raises:
            UsageError: the request cannot be.
            KeyReused: the key came before with another request.
            ApiError: the server refused, or did not answer.
        """
        return await self._do(calls.submit(calls.request_of(query, fields), idempotency_key))

    async def submit_many(
        self, requests: Sequence[ResearchRequest | Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> BatchView:
        """Submit up to a hundred jobs, each by its fields; each is accepted or refused by itself.

        The key covers each at its place. Errors as for ``submit``.
        """
        return await self._do(calls.submit_many(requests, idempotency_key))

    async def estimate(self, query: str | ResearchRequest, **fields: Any) -> Estimate:
        """What a job would cost; no model is asked. Arguments and errors as for ``submit``."""
        return await self._do(calls.estimate(calls.request_of(query, fields)))

    async def get(self, id: str) -> ResearchView:
        """How a job stands.

        Raises:
            UnknownJob: there is none of this id.
        """
        return await self._do(calls.get(id))

    async def wait(self, id: str, seconds: float | None = None) -> ResearchView:
        """How a job stands once it has ended or waits for a person, or after so many seconds."""
        ends = None if seconds is None else time.monotonic() + seconds
        while True:
            view = await self.get(id)
            if view.status.ended or view.status in (JobState.AWAITING_APPROVAL, JobState.PAUSED_BUDGET):
                return view
            left = WAIT_S if ends is None else min(WAIT_S, ends - time.monotonic())
            if left <= 0:
                return view
            if view.has_result:
                await asyncio.sleep(min(1.0, left))
            else:
                # A job that fails meanwhile is told by the next look at it.
                with contextlib.suppress(JobFailed):
                    await self._do(calls.waited(id, left))

    async def result(self, id: str, seconds: float | None = None) -> ResearchResult:
        """What a job found, whole or partial; waits for its end.

        Raises:
            JobFailed: it ended without any result.
            JobStateConflict: after so many seconds, or because it waits for a person, there is none yet.
            UnknownJob: there is none of this id.
        """
        view = await self.wait(id, seconds)
        found = await self._do(calls.waited(id, 0.0))
        if isinstance(found, ResearchResult):
            return found
        raise JobStateConflict(f"The job '{id}' is {view.status} and has no result yet. Wait for it, or stop it.")

    async def events(self, id: str, since: int = 0) -> AsyncIterator[JobEvent]:
        """Events after a number, each once and in order, until the job has ended; a broken stream is taken up again."""
        reading = Reading(id, since)
        while not reading.ended:
            try:
                async with self._stream(reading) as response:
                    if response.status_code >= 400:
                        await response.aread()
                        reading.refused(response)
                    else:
                        reading.opened()
                        async for piece in response.aiter_bytes():
                            for event in reading.take(piece):
                                yield event
            except (httpx.HTTPError, Broken):
                pass
            if not reading.ended:
                await asyncio.sleep(reading.broke_off())

    async def list(
        self,
        *,
        states: Sequence[JobState] = (),
        metadata: Mapping[str, str] | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> ResearchPage:
        """Jobs, newest first, a page at a time; ``cursor`` of a page gives the next."""
        return await self._do(calls.page(states, metadata or {}, cursor, limit))

    async def cancel(self, id: str) -> ResearchView:
        """End a job, and discard what it found."""
        return await self._do(calls.control(id, "cancel"))

    async def stop(self, id: str) -> ResearchView:
        """Let a job finish early, with what it found."""
        return await self._do(calls.control(id, "stop"))

    async def resume(self, id: str) -> ResearchView:
        """Go on with a job that failed or is paused."""
        return await self._do(calls.control(id, "resume"))

    async def approve(self, id: str, plan: Sequence[str] | None = None) -> ResearchView:
        """Let a job go on with its plan, or with another."""
        return await self._do(calls.control(id, "approve", PlanChoice(plan=None if plan is None else tuple(plan))))

    async def set_budget(self, id: str, budget: JobBudget) -> ResearchView:
        """Give a job other limits."""
        return await self._do(calls.control(id, "budget", budget))

    async def delete(self, id: str) -> None:
        """Remove a job that has ended, with everything it kept."""
        await self._do(calls.delete(id))

    async def sources(self, id: str) -> Sequence[SourceView]:
        """What a job read."""
        return await self._do(calls.sources(id))

    async def source(self, id: str, source: str) -> str:
        """The stored text of a source, by its id in ``sources``: exactly what claims cite."""
        return await self._do(calls.source(id, source))

    async def claims(self, id: str) -> Sequence[Claim]:
        """What a job claims, each with its citations."""
        return await self._do(calls.claims(id))

    async def spend(self, id: str) -> SpendView:
        """What a job has spent, against what it may."""
        return await self._do(calls.spend(id))

    async def markdown(self, id: str) -> str:
        """The report as Markdown."""
        return await self._do(calls.markdown(id))

    async def html(self, id: str) -> str:
        """The report as a page of its own."""
        return await self._do(calls.html(id))

    async def upload(self, name: str, paths: Sequence[str | Path]) -> str:
        """Make a collection of files.

        Returns:
            Its id, for ``sources={"collections": [id]}``.

        Raises:
            UsageError: a file cannot be read, here or at the server.
        """
        collection = await self._do(calls.collection(name))
        for path in paths:
            await self._do(calls.upload(collection, Path(path)))
        return collection

    async def aclose(self) -> None:
        """Let go of connections. Closing twice changes nothing."""
        if self._mine:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _stream(self, reading: Reading) -> AbstractAsyncContextManager[httpx.Response]:
        asked = reading.request
        headers = {**self._headers, **asked["headers"]}
        return self._http.stream("GET", self._url + asked["url"], params=asked["params"], headers=headers)

    async def _do(self, call: Call[Value]) -> Value:
        """Send a call, again while the server asks for that; every try is the same call to it."""
        for tries in range(TRIES):
            last = tries == TRIES - 1 or not call.again
            try:
                response = await self._http.request(
                    call.method, self._url + call.path, json=call.json, params=call.params, files=call.files,
                    headers={**self._headers, **call.headers},
                )  # fmt: skip
            except httpx.HTTPError as error:
                if last:
                    raise calls.unreachable(error) from error
                await asyncio.sleep(calls.pause_s(tries))
                continue
            if response.status_code < 400:
                return calls.read(call, response)
            pause_s = calls.pause_before_again(response, tries)
            if last or pause_s is None:
                raise calls.error_of(response)
            await asyncio.sleep(pause_s)
        raise AssertionError("the last try returns or raises")
