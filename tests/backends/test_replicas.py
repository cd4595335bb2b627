"""Several servers of one model: which is asked, and what happens when one of them is dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentflow.backends import make_backend
from agentflow.backends.base import Backend, Probe
from agentflow.backends.openai_http import OpenAIBackend
from agentflow.backends.replicas import Replica, ReplicatedBackend, prefix_of
from agentflow.backends.server_metrics import ServerMetrics
from agentflow.config import ModelSettings
from agentflow.errors import BackendError, BackendTimeout, BackendUnavailable, RequestRejected
from agentflow.messages import Completion, Delta, Message, Request, Timings, TokenUsage
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer, ServerProcess

COUNT = TokenCounter.for_model("gpt-4o").usage
SHORT = Request((Message("user", "hello"),), max_output_tokens=50)


def long(topic: str) -> Request:
    """A prompt worth finding in a cache."""
    return Request((Message("system", "You answer briefly. " * 40), Message("user", f"About {topic}?")))


@dataclass
class Server:
    """A backend that does as it is told; the calls of one that hangs wait until it is open."""

    provider: str = "fake"
    in_process: bool = False
    error: BackendError | None = None
    reachable: bool = True
    hangs: bool = False
    asked: int = 0
    probed: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if self.hangs:
            await self.open.wait()
        return Completion("ok", model, TokenUsage(1, 1), Timings(0.0))

    async def probe(self) -> Probe:
        self.probed += 1
        return Probe(self.reachable, "a server")

    async def aclose(self) -> None:
        pass


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Three:
    """Three servers behind one backend, with a clock that a test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.servers = [Server() for _ in range(3)]
        self.replicas = [Replica(f"http://server{n}/v1", server) for n, server in enumerate(self.servers)]
        self.backend = ReplicatedBackend(self.replicas, retries=0, clock=self.clock)

    def preferred(self, request: Request) -> Server:
        return self.servers[self.replicas.index(self.backend.order("m", request)[0])]

    async def ask(self, request: Request) -> Completion:
        completion = await self.backend.complete("m", request)
        # What was looked at beside the call has been seen.
        for _ in range(5):
            await asyncio.sleep(0)
        return completion

    @property
    def asked(self) -> list[int]:
        return [server.asked for server in self.servers]


@pytest.fixture
async def three() -> AsyncIterator[Three]:
    it = Three()
    yield it
    await it.backend.aclose()


async def test_a_conversation_stays_where_its_beginning_is_cached(three: Three) -> None:
    request = long("cats")
    for turn in range(5):
        await three.ask(request)
        turns = (Message("assistant", f"reply {turn}"), Message("user", f"and then? {turn}"))
        request = replace(request, messages=(*request.messages, *turns))
    assert sorted(three.asked) == [0, 0, 5]


async def test_many_conversations_are_spread(three: Three) -> None:
    for topic in range(60):
        await three.ask(long(str(topic)))
    assert min(three.asked) >= 8


async def test_a_tenants_salt_and_the_model_are_part_of_what_is_cached() -> None:
    assert prefix_of("m", long("cats")) != prefix_of("m", replace(long("cats"), cache_salt="a"))
    assert prefix_of("m", long("cats")) != prefix_of("n", long("cats"))
    assert prefix_of("m", SHORT) is None


async def test_a_server_that_goes_moves_only_its_own_prompts(three: Three) -> None:
    before = {topic: three.backend.order("m", long(str(topic)))[0] for topic in range(40)}
    lost = three.replicas[0]
    lost.away = True
    for topic, replica in before.items():
        now = three.backend.order("m", long(str(topic)))[0]
        assert now is replica or replica is lost
        assert now is not lost


async def test_short_prompts_go_to_the_least_busy_in_turn(three: Three) -> None:
    for server in three.servers:
        server.hangs = True
    async with asyncio.TaskGroup() as group:
        for _ in range(9):
            group.create_task(three.backend.complete("m", SHORT))
            await asyncio.sleep(0)
        for server in three.servers:
            server.open.set()
    assert three.asked == [3, 3, 3]


@given(
    loads=st.lists(st.integers(0, 200), min_size=2, max_size=6),
    topic=st.text(max_size=8),
    away=st.sets(st.integers(0, 5)),
)
def test_no_server_is_asked_first_that_is_much_busier_than_another(
    loads: list[int], topic: str, away: set[int]
) -> None:
    replicas = [Replica(f"s{n}", Server()) for n in range(len(loads))]
    for place, (replica, load) in enumerate(zip(replicas, loads, strict=True)):
        replica._out, replica.away = load, place in away
    order = ReplicatedBackend(replicas, clock=Clock()).order("m", long(topic))
    assert set(order) == set(replicas), "every server is there to be tried at last"
    well = [replica for replica in replicas if not replica.away]
    if well:
        least = min(replica._out for replica in well)
        assert not order[0].away
        assert order[0]._out <= least + max(4, 0.25 * least)


async def test_a_dead_server_is_left_alone_and_asked_later_whether_it_is_back(three: Three) -> None:
    request = long("cats")
    dead = three.preferred(request)
    dead.error, dead.reachable = BackendUnavailable("refused"), False
    for _ in range(4):
        assert (await three.ask(request)).text == "ok"
    assert (dead.asked, dead.probed) == (1, 0)
    for pause, probes in ((1.1, 1), (1.1, 1), (1.1, 2), (2.1, 2), (2.1, 3)):
        three.clock.now += pause
        await three.ask(request)
        assert dead.probed == probes, "each time after twice as long"
    dead.error, dead.reachable = None, True
    three.clock.now += 10
    await three.ask(request)
    assert dead.asked == 1, "the call beside which it was asked was not risked on it"
    await three.ask(request)
    assert dead.asked == 2
    assert three.backend.statistics()[three.servers.index(dead)].failures == 0


async def test_a_busy_server_is_left_alone_as_long_as_it_asks(three: Three) -> None:
    request = long("cats")
    busy = three.preferred(request)
    error = BackendUnavailable("429")
    error.retry_after_s = 20.0
    busy.error = error
    await three.ask(request)
    busy.error = None
    three.clock.now += 19
    await three.ask(request)
    assert (busy.asked, busy.probed) == (1, 0)
    three.clock.now += 2
    await three.ask(request)
    await three.ask(request)
    assert busy.asked == 2


@pytest.mark.parametrize("error", [BackendError("500"), BackendTimeout("hung")])
async def test_what_may_have_cost_is_not_sent_to_another_but_its_server_is_left_alone(
    three: Three, error: BackendError
) -> None:
    request = long("cats")
    three.preferred(request).error = error
    with pytest.raises(type(error)):
        await three.ask(request)
    assert sum(three.asked) == 1
    assert (await three.ask(request)).text == "ok"


async def test_a_request_that_is_refused_is_no_fault_of_the_server(three: Three) -> None:
    request = long("cats")
    server = three.preferred(request)
    server.error = RequestRejected("400")
    with pytest.raises(RequestRejected):
        await three.ask(request)
    assert three.preferred(request) is server


async def test_when_all_are_dead_each_was_tried_once_and_one_error_says_so(three: Three) -> None:
    for server in three.servers:
        server.error = BackendUnavailable("refused")
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="None of 3 servers") as raised:
            await three.ask(long("cats"))
        assert not raised.value.sent
    assert three.asked == [2, 2, 2]


async def test_a_cancelled_call_leaves_no_load_behind_and_no_verdict(three: Three) -> None:
    for server in three.servers:
        server.hangs = True
    task = asyncio.create_task(three.backend.complete("m", SHORT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(one.out for one in three.backend.statistics()) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(one.out, one.away_s) for one in three.backend.statistics()] == [(0, None)] * 3


@pytest.mark.parametrize(("waited_s", "away"), [(5.0, True), (1.0, False)])
async def test_a_server_whose_time_was_up_when_its_caller_gave_up_is_left_alone(
    three: Three, waited_s: float, away: bool
) -> None:
    replica = three.replicas[0]
    three.servers[0].hangs = True
    call = replica.complete("m", replace(SHORT, timeout_s=5.0), None, three.clock)
    task = asyncio.create_task(call)
    await asyncio.sleep(0)
    three.clock.now += waited_s
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert replica.away is away


VLLM_LOAD = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} %d
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} %d
"""
LLAMACPP_LOAD = """\
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing %d
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred %d
"""


@pytest.mark.parametrize("page", [VLLM_LOAD, LLAMACPP_LOAD])
async def test_the_servers_own_pages_say_who_is_busy_with_others_calls(
    _openai_process: ServerProcess, page: str
) -> None:
    servers = [ScriptedServer(_openai_process) for _ in range(2)]
    servers[0].pages({"/metrics": page % (6, 3)})
    servers[1].pages({"/metrics": page % (1, 0)})
    replicas = [
        Replica(server.url, OpenAIBackend(server.url, COUNT, retries=0), ServerMetrics(server.url))
        for server in servers
    ]
    backend = ReplicatedBackend(replicas)
    await asyncio.gather(*(replica.look(Clock()) for replica in replicas))
    try:
        assert [one.load for one in _at(backend, 100.0)] == [9.0, 1.0]
        for topic in range(10):
            assert await _first(backend, long(str(topic)), 100.0) is replicas[1]
        assert [one.load for one in _at(backend, 106.0)] == [0, 0], "an old look is not used"
    finally:
        await backend.aclose()


def _at(backend: ReplicatedBackend, now: float) -> tuple[Any, ...]:
    backend._clock = Clock(now)
    return backend.statistics()


async def _first(backend: ReplicatedBackend, request: Request, now: float) -> Replica:
    backend._clock = Clock(now)
    return backend.order("m", request)[0]


async def test_the_configuration_names_several_servers(_openai_process: ServerProcess) -> None:
    servers = [ScriptedServer(_openai_process) for _ in range(3)]
    for server in servers:
        server.script({"m": [{"text": "hi"}]})
    dead = "http://127.0.0.1:9/v1"
    settings = ModelSettings(backend="openai", base_urls=(dead, *(server.url for server in servers)), metrics=True)
    backend: Backend = make_backend("m", settings, COUNT)
    try:
        for _ in range(6):
            assert (await backend.complete("m", replace(SHORT, timeout_s=20))).text == "hi"
        probe = await backend.probe()
    finally:
        await backend.aclose()
    asked = [len(server.requests()) for server in servers]
    assert sum(asked) == 6
    assert min(asked) >= 1
    assert probe.reachable
    assert "3 of 4 servers answer" in probe.detail


@pytest.mark.parametrize(
    "table",
    [
        {"base_url": "http://a/v1", "base_urls": ("http://b/v1",)},
        {"base_urls": ("http://a/v1", "http://a/v1/")},
        {"base_urls": ("ftp://a",)},
        {"backend": "litellm", "model": "x/y", "base_urls": ("http://a/v1",)},
        {},
    ],
)
def test_addresses_that_contradict_each_other_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelSettings(**{"backend": "openai", **table})
