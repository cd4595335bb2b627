"""Events as they happen: server-sent events with numbers, heartbeats, and a word where some are missing.

Imports answering, jobs. Each reader is a few tasks; what they wait for together is one question to the database.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from agentflow.jobs.job import JobEvent, JobView
from agentflow.server.answering import Head
from agentflow.server.problems import Problem
from agentflow.server.state import Server

_HEADERS: Final = {"x-accel-buffering": "no"}
# Between looks at a job that waits for a person.
_LOOK_S: Final = 1.0
_AHEAD: Final = 64


@dataclass(frozen=True, slots=True)
class EventReader:
    """Who reads a stream: whose jobs they see, and what raises once they may no more."""

    tenant: str | None
    check: Callable[[], Awaitable[None]]


async def stream_events(server: Server, job: JobView, reader: EventReader, since: int) -> AsyncGenerator[Head | bytes]:
    """The events of a job after a number, until it has ended or the server is asked to.

    Args:
        server: the server.
        job: the job, as it stood a moment ago.
        reader: who reads.
        since: the last number that the reader has.
    """
    yield Head("text/event-stream", _HEADERS)
    yield b"retry: 1000\n\n"
    server.metrics.streams.inc()
    try:
        if since > job.events:
            # The reader has numbers that this job never gave out: it was deleted and its id is another's, or it erred.
            yield _event("gap", {"asked": since, "latest": job.events})
            since = job.events
        async for part in _beating(_parts(server, job.id, reader.tenant, since), server, reader):
            yield part
    finally:
        server.metrics.streams.dec()


def apology(problem: Problem) -> bytes:
    """What a stream that broke off says last."""
    return _event("error", problem.body())


async def _parts(server: Server, id: str, tenant: str | None, since: int) -> AsyncGenerator[bytes]:
    last = since
    while True:
        async for event in server.jobs.events(id, since=last, tenant=tenant):
            if event.number != last + 1:
                yield _event("gap", {"asked": last + 1, "next": event.number})
            last = event.number
            yield _numbered(event)
        job = await server.jobs.get(id, tenant=tenant)
        if job.state.ended and job.events <= last:
            yield _event("end", {"status": str(job.state), "events": last})
            return
        await asyncio.sleep(_LOOK_S)


async def _beating(parts: AsyncIterator[bytes], server: Server, reader: EventReader) -> AsyncGenerator[bytes]:
    """The same parts, with a sign of life when nothing comes, until the server is to end or the reader's key has."""
    pause_s = server.settings.server.heartbeat_s
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(_AHEAD)

    async def pump() -> None:
        try:
            async for part in parts:
                await queue.put(part)
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    async def check() -> None:
        await queue.put(await _refusal(reader, pause_s))

    async def end() -> None:
        await server.stopping.wait()
        await queue.put(None)

    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(pump()), group.create_task(end()), group.create_task(check())]
        while isinstance(part := await _next(queue, pause_s), bytes):
            yield part
        for task in beside:
            task.cancel()
    # Outside of the group, which would hand it on inside a group of errors.
    if part is not None:
        raise part


async def _next(queue: asyncio.Queue[bytes | Exception | None], pause_s: float) -> bytes | Exception | None:
    """What comes next, or a sign of life when nothing does."""
    try:
        async with asyncio.timeout(pause_s):
            return await queue.get()
    except TimeoutError:
        return b": still here\n\n"


async def _refusal(reader: EventReader, every_s: float) -> Exception:
    """Why the reader may read no longer, once it is so."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await reader.check()
        except Exception as error:
            return error


def _numbered(event: JobEvent) -> bytes:
    # In ASCII: some readers of lines end one at U+2028 and its like, which JSON leaves as they are.
    head = f"id: {event.number}\nevent: {event.kind}\n"
    return head.encode() + b"data: " + event.model_dump_json(ensure_ascii=True).encode() + b"\n\n"


def _event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
