"""Several servers of one model behind one backend: which of them is asked, and what happens when one is dead.

A prompt goes where its beginning was read before, so that the server's prefix cache has it, unless that server is
much busier than the least busy one. May import base, retrying, server_metrics and everything below.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agentflow.backends.base import Backend, Probe, ServerFacts
from agentflow.backends.retrying import retried
from agentflow.backends.server_metrics import ServerMetrics
from agentflow.errors import BackendError, BackendUnavailable, RequestRejected
from agentflow.messages import Completion, Delta, Request

# A server is too busy for its own prompts when it has more calls than the least busy one has, by these or by this part
# of that one's, whichever is more: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016).
_AHEAD: Final = 4
_AHEAD_SHARE: Final = 0.25
# What tells one prompt from another: a cache keeps blocks of some tokens, and a conversation keeps its first turn.
_PREFIX_CHARS: Final = 4_096
_LEAST_PROMPT_CHARS: Final = 256
# A dead server is asked whether it is back after these seconds, then after twice as long, and so on.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
# A call cancelled after this part of its time was given all of it.
_ALL_OF_IT: Final = 0.98
# A look at a server's load that is older is not used; another is taken once it is this old.
_FRESH_S: Final = 0.5
_STALE_S: Final = 5.0


@dataclass(slots=True, eq=False)
class Replica:
    """One server.

    Args:
        name: its address; where prompts go rests on it, so that a restart changes nothing.
        backend: what speaks to it, without retries of its own.
        metrics: its page of metrics, if it may have one.

    ``away`` is whether it failed and has not been heard of since, ``look_at`` when it is looked at again.
    """

    name: str
    backend: Backend
    metrics: ServerMetrics | None = None
    away: bool = field(default=False, init=False)
    look_at: float = field(default=0.0, init=False)
    _out: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _seen: float | None = field(default=None, init=False)
    _seen_at: float = field(default=0.0, init=False)
    _out_then: int = field(default=0, init=False)

    def load(self, now: float) -> float:
        """Calls that it serves or has waiting: by its own page as far as that is fresh, else those of ours."""
        if self._seen is None or now - self._seen_at > _STALE_S:
            return self._out
        return max(self._seen + self._out - self._out_then, self._out)

    def statistics(self, now: float) -> ReplicaStatistics:
        """What is known of it."""
        away_s = max(self.look_at - now, 0.0) if self.away else None
        return ReplicaStatistics(self.name, self._out, self.load(now), self._failures, away_s)

    async def complete(
        self, model: str, request: Request, tell: Callable[[Delta], None] | None, clock: Callable[[], float]
    ) -> Completion:
        """Ask it, and remember how that went."""
        started = clock()
        self._out += 1
        try:
            completion = await self.backend.complete(model, request, tell)
        except RequestRejected:
            # The request's fault: the server is well.
            raise
        except BackendError as error:
            self._failed(clock(), error.retry_after_s if isinstance(error, BackendUnavailable) else None)
            raise
        except asyncio.CancelledError:
            # Whoever asked may count the same seconds, and be first to say that they are over.
            if request.timeout_s is not None and clock() - started >= _ALL_OF_IT * request.timeout_s:
                self._failed(clock(), None)
            raise
        finally:
            self._out -= 1
        self._failures, self.away = 0, False
        return completion

    def _failed(self, now: float, asked_s: float | None) -> None:
        self._failures += 1
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(self._failures - 1, 30), _LONGEST_PAUSE_S)
        self.away, self.look_at = True, now + max(pause_s, min(asked_s or 0.0, _LONGEST_PAUSE_S))

    def is_due(self, now: float) -> bool:
        """Whether it is time to look at its load, or to ask whether it is back."""
        return now >= self.look_at and (self.away or self.metrics is not None)

    async def look(self, clock: Callable[[], float]) -> None:
        """Read its load. One that failed is asked whether it is back, and left alone for longer when it is not."""
        if self.away:
            if not (await self.backend.probe()).reachable:
                self._failed(clock(), None)
                return
            self.away = False
        self.look_at = clock() + _FRESH_S
        if self.metrics is None:
            return
        try:
            counts = await self.metrics.read()
        except BackendError:
            self._seen, self.look_at = None, clock() + _LONGEST_PAUSE_S
            return
        if counts.running is not None:
            self._seen, self._seen_at, self._out_then = counts.running + (counts.waiting or 0.0), clock(), self._out


@dataclass(frozen=True, slots=True)
class ReplicaStatistics:
    """One server as it is known.

    ``out`` are our own calls, ``load`` all of them. ``away_s`` is set of one that failed: seconds until it is asked
    whether it is back.
    """

    name: str
    out: int
    load: float
    failures: int
    away_s: float | None


class ReplicatedBackend:
    """One model on several servers.

    Args:
        replicas: the servers.
        retries: how often all of them are tried again, when none generated anything.
        clock: seconds that only rise.

    Example::

        backend = ReplicatedBackend([
            Replica(url, OpenAIBackend(url, count, retries=0), ServerMetrics(url)) for url in base_urls
        ])
    """

    in_process = False

    def __init__(
        self, replicas: Sequence[Replica], *, retries: int = 2, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.provider = replicas[0].backend.provider
        self._replicas = tuple(replicas)
        self._retries = retries
        self._clock = clock
        self._turn = 0
        self._looking: asyncio.Task[None] | None = None

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask one of the servers, within ``request.timeout_s``; another one when the first surely generated nothing.

        Raises:
            BackendError: as the subclass that says whether it may have cost something.
        """
        self._look_around()
        ends_at = None if request.timeout_s is None else self._clock() + request.timeout_s
        return await retried(lambda: self._round(model, request, tell, ends_at), self._retries, request.timeout_s)

    async def _round(
        self, model: str, request: Request, tell: Callable[[Delta], None] | None, ends_at: float | None
    ) -> Completion:
        """Ask the servers in turn, until one does more than refuse."""
        failures: list[BackendUnavailable] = []
        for replica in self.order(model, request):
            if failures and ends_at is not None:
                left_s = ends_at - self._clock()
                if left_s <= 0:
                    break
                request = replace(request, timeout_s=left_s)
            try:
                return await replica.complete(model, request, tell, self._clock)
            except BackendUnavailable as error:
                failures.append(error)
        raise _together(failures)

    def order(self, model: str, request: Request) -> list[Replica]:
        """The servers as they would be tried for this request, best first.

        First those that are not too busy, by whose cache has the prompt's beginning; then the busier ones, least busy
        first; at last those that failed lately, by when they are to be asked again.
        """
        now = self._clock()
        well = [replica for replica in self._replicas if not replica.away]
        away = sorted((replica for replica in self._replicas if replica.away), key=lambda replica: replica.look_at)
        if not well:
            return away
        loads = {replica: replica.load(now) for replica in well}
        least = min(loads.values())
        ranked = self._ranked(well, prefix_of(model, request))
        if ranked is None:
            return [*self._by_load(loads), *away]
        bound = least + max(_AHEAD, least * _AHEAD_SHARE)
        free = [replica for replica in ranked if loads[replica] <= bound]
        busy = sorted((replica for replica in ranked if loads[replica] > bound), key=lambda r: loads[r])
        return [*free, *busy, *away]

    def _ranked(self, replicas: list[Replica], prefix: bytes | None) -> list[Replica] | None:
        """By rendezvous hashing: a server that goes or comes moves no other's prompts (Thaler, Ravishankar, 1998)."""
        if prefix is None:
            return None
        return sorted(replicas, key=lambda r: hashlib.blake2b(prefix + r.name.encode(), digest_size=8).digest())

    def _by_load(self, loads: dict[Replica, float]) -> list[Replica]:
        """Least busy first, and equally busy ones in turn."""
        self._turn += 1
        places = {replica: place for place, replica in enumerate(loads)}
        return sorted(loads, key=lambda r: (loads[r], (places[r] - self._turn) % len(places)))

    def statistics(self) -> tuple[ReplicaStatistics, ...]:
        """What is known of each server, in their given order."""
        now = self._clock()
        return tuple(replica.statistics(now) for replica in self._replicas)

    def _look_around(self) -> None:
        """Look at the servers beside a call, never in its way: what a look finds serves the calls after it."""
        if self._looking is not None and not self._looking.done():
            return
        now = self._clock()
        due = [replica for replica in self._replicas if replica.is_due(now)]
        if due:
            self._looking = asyncio.create_task(self._look(due))

    async def _look(self, due: list[Replica]) -> None:
        async with asyncio.TaskGroup() as group:
            for replica in due:
                group.create_task(replica.look(self._clock))

    async def probe(self) -> Probe:
        """Ask every server; reachable if one is. Never raises."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(replica.backend.probe()) for replica in self._replicas]
        probes = [task.result() for task in tasks]
        there = [probe for probe in probes if probe.reachable]
        if not there:
            return Probe(False, "; ".join(probe.detail for probe in probes))
        missing = "".join(f"; {probe.detail}" for probe in probes if not probe.reachable)
        slowest = max((probe.round_trip_s or 0.0) for probe in there)
        detail = f"{len(there)} of {len(probes)} servers answer{missing}"
        return Probe(True, detail, slowest, there[0].models, _facts_of(there))

    async def aclose(self) -> None:
        """Close every connection; a look in progress ends."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait((looking,))
        async with contextlib.AsyncExitStack() as stack:
            for replica in self._replicas:
                stack.push_async_callback(replica.backend.aclose)
                if replica.metrics is not None:
                    stack.push_async_callback(replica.metrics.aclose)


def prefix_of(model: str, request: Request) -> bytes | None:
    """What the prompt begins with, hashed: its instructions and first turn, which stay while a conversation grows.

    None for prompts too short to be worth finding in a cache.
    """
    if sum(len(message.content) for message in request.messages) < _LEAST_PROMPT_CHARS:
        return None
    digest, left = hashlib.blake2b(f"{model}\0{request.cache_salt or ''}".encode(), digest_size=16), _PREFIX_CHARS
    for message in request.messages:
        digest.update(f"\0{message.role}\0{message.content[:left]}".encode("utf-8", "surrogatepass"))
        left -= len(message.content)
        if left <= 0 or message.role != "system":
            break
    return digest.digest()


def _together(failures: list[BackendUnavailable]) -> BackendUnavailable:
    """What all servers said, as one error, whose wait is the shortest of theirs."""
    if len(failures) == 1:
        return failures[0]
    error = BackendUnavailable(f"None of {len(failures)} servers took the call. " + " | ".join(map(str, failures)))
    waits = [failure.retry_after_s for failure in failures]
    error.retry_after_s = min((wait for wait in waits if wait is not None), default=None) if None not in waits else None
    error.lasting = all(failure.lasting for failure in failures)
    return error


def _facts_of(probes: list[Probe]) -> ServerFacts | None:
    """The first server's facts, with the load of all of them."""
    known = [probe.server for probe in probes if probe.server is not None]
    if not known:
        return None
    running = [facts.running for facts in known if facts.running is not None]
    waiting = [facts.waiting for facts in known if facts.waiting is not None]
    slots = [facts.slots for facts in known if facts.slots is not None]
    return replace(
        known[0],
        running=sum(running) if running else None,
        waiting=sum(waiting) if waiting else None,
        slots=sum(slots) if slots else None,
    )
