"""What goes wrong at servers, at the backend and through a cascade of two rungs with a budget.

Each fault ends in a reply from another rung or in one clear error. No hold stays open, nothing that may have cost
goes uncharged, no budget is passed, and no task or connection outlives its call.
"""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agentflow.backends.base import Backend
from agentflow.backends.openai_http import OpenAIBackend
from agentflow.backends.replicas import Replica, ReplicatedBackend
from agentflow.budget.budget import Budget
from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import Price
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.policy import Policy
from agentflow.cascade.rung import ModelRung
from agentflow.chain import Chain
from agentflow.energy.profiles import RemotePrior
from agentflow.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BadReply,
    CallFailed,
    ConnectionDropped,
    RequestRejected,
)
from agentflow.messages import Message, Request
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer

COUNTER = TokenCounter.for_model("gpt-4o")
PRICE = Price.per_million("1", "4", source="test")
ASK = Request((Message("user", "What is 2 + 2?"),), max_output_tokens=50)
BUDGET = Budget(tokens=400, usd=0.001, joules=10_000, seconds=50)
LONG_REPLY = "four and nothing else, said at some length so that it takes several pieces. " * 4


@dataclass(frozen=True)
class Fault:
    """What a server does wrong, the error that is due, and whether it may have cost something."""

    step: dict[str, Any]
    error: type[BackendError]
    words: str
    timeout_s: float = 20.0
    retries: int = 0


def stream_of(*events: str) -> dict[str, Any]:
    return {"sse": "".join(f"data: {event}\n\n" for event in events)}


A_PIECE = '{"choices": [{"delta": {"content": "fo"}, "finish_reason": null}]}'
FAULTS = {
    "slow": Fault({"text": "4", "gate": "never"}, BackendTimeout, "no whole reply", timeout_s=0.3),
    "hung in its stream": Fault(
        {"text": LONG_REPLY, "gate_chunk": "never", "gate_from": 1}, BackendTimeout, "no whole reply", timeout_s=0.3
    ),
    "drops in its stream": Fault({"text": LONG_REPLY, "drop_after": 2}, ConnectionDropped, "closed|ended"),
    "drops at once": Fault({"text": LONG_REPLY, "drop_after": 0}, ConnectionDropped, "closed|ended"),
    "ends without an end": Fault(stream_of(A_PIECE), ConnectionDropped, "before the reply of 'small' was whole"),
    "429": Fault({"status": 429}, BackendUnavailable, "429", retries=1),
    "429 for 60 s": Fault({"status": 429, "retry_after": 60}, BackendUnavailable, "429", retries=3),
    "429 until a date": Fault(
        {"status": 429, "retry_after": "Fri, 31 Dec 2100 23:59:59 GMT"}, BackendUnavailable, "429", retries=3
    ),
    "429 with nonsense": Fault({"status": 429, "retry_after": "soon, \u2014"}, BackendUnavailable, "429", retries=1),
    "storm of 500": Fault({"status": 500}, BackendError, "500", retries=3),
    "storm of 502": Fault({"status": 502}, ConnectionDropped, "502", retries=3),
    "elsewhere": Fault({"status": 307}, RequestRejected, "set base_url"),
    "malformed JSON": Fault({"garbage": '{"choices": [{'}, BadReply, "not JSON"),
    "deep JSON": Fault({"garbage": "[" * 200_000}, BadReply, "not JSON"),
    "HTML": Fault({"garbage": "<html>"}, BadReply, "not JSON"),
    "malformed SSE": Fault(stream_of(A_PIECE, '{"choices": [{"del'), BadReply, "not JSON"),
    "SSE of something else": Fault(stream_of("null"), BadReply, "chat completion"),
    "error in SSE": Fault(stream_of(A_PIECE, '{"error": {"message": "CUDA out of memory"}}'), BackendError, "CUDA"),
    "huge line": Fault({"long_line": 3_000_000}, BadReply, "1,000,000 bytes"),
}


@dataclass
class Rig:
    """Two rungs on two servers, a chain with a budget, and everything that must be as it was afterwards."""

    server: ScriptedServer
    meter: Meter = field(default_factory=lambda: Meter("chain", BUDGET))
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    backends: list[Backend] = field(default_factory=list)

    def backend(self, url: str = "", **options: Any) -> OpenAIBackend:
        backend = OpenAIBackend(url or self.server.url, COUNTER.usage, **{"retries": 0, **options})
        self.backends.append(backend)
        return backend

    def chain(self, first: Backend, timeout_s: float = 20.0) -> Chain:
        rungs = tuple(
            ModelRung(name, backend, name, PRICE, RemotePrior(), COUNTER, default_output=50, timeout_s=timeout)
            for name, backend, timeout in (("small", first, timeout_s), ("large", self.backend(), 20.0))
        )
        return Chain(self.meter, Cascade("test", rungs, Policy()), self.ledger)

    def within_budget(self) -> None:
        statistics, room = self.meter.statistics(), self.meter.room()
        assert (statistics.open_holds, statistics.overruns) == (0, 0)
        assert room.tokens is not None
        assert room.tokens >= 0
        assert room.nano_usd is not None
        assert room.nano_usd >= 0


@pytest.fixture
async def rig(scripted_server: ScriptedServer) -> AsyncIterator[Rig]:
    it = Rig(scripted_server)
    yield it
    for backend in it.backends:
        if isinstance(backend, OpenAIBackend) and backend._session is not None:
            connector: Any = backend._session.connector
            assert not connector._acquired, "a connection is still held by a call that has ended"
        await backend.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlived its call"


every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())


@every_fault
async def test_a_backend_tells_a_fault_by_its_kind(rig: Rig, fault: Fault) -> None:
    rig.server.script({"small": [fault.step]})
    request = Request(ASK.messages, max_output_tokens=50, timeout_s=fault.timeout_s)
    with pytest.raises(fault.error, match=fault.words) as raised:
        await rig.backend(retries=fault.retries).complete("small", request)
    assert type(raised.value) is fault.error
    assert "\n" not in str(raised.value)
    asked = len(rig.server.requests())
    assert asked == 1 + (fault.retries if fault.retries == 1 else 0), "only a 429 without a long wait is asked again"


@every_fault
async def test_a_cascade_goes_on_to_the_next_rung_and_charges_what_may_have_cost(rig: Rig, fault: Fault) -> None:
    rig.server.script({"small": [fault.step], "large": [{"text": "4"}]})
    reply = await rig.chain(rig.backend(retries=fault.retries), fault.timeout_s).call(ASK)
    assert (reply.text, reply.rung) == ("4", "large")
    failed, accepted = reply.attempts
    assert (failed.outcome, accepted.outcome) == ("failed", "accepted")
    charged = failed.spend.nano_usd > 0
    assert charged == fault.error.sent, "in doubt it is charged at its worst; what was not sent costs nothing"
    rig.within_budget()
    assert rig.meter.statistics().spent.nano_usd == reply.spend.nano_usd


@every_fault
async def test_when_every_rung_fails_one_error_names_them_all(rig: Rig, fault: Fault) -> None:
    rig.server.script({"small": [fault.step], "large": [{"status": 503}]})
    with pytest.raises(CallFailed, match=r"small: .*large: .*503") as raised:
        await rig.chain(rig.backend(retries=fault.retries), fault.timeout_s).call(ASK)
    assert "\n" not in str(raised.value)
    rig.within_budget()


@pytest.mark.parametrize(
    ("usage", "ignored"),
    [
        ({"prompt_tokens": -5, "completion_tokens": 1}, "usage"),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, "usage"),
        ({"prompt_tokens": "12", "completion_tokens": "1"}, "usage"),
        ({"prompt_tokens": 12, "completion_tokens": 10**7}, "usage"),
        ({"prompt_tokens": 10**7, "completion_tokens": 1}, "usage"),
        ({"prompt_tokens": 10**400, "completion_tokens": 1}, "usage"),
        ([], "usage"),
        ({"prompt_tokens": 1, "completion_tokens": 1}, "usage_too_low"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
async def test_wrong_usage_is_marked_and_passes_no_budget(rig: Rig, usage: Any, ignored: str, whole: bool) -> None:
    text = LONG_REPLY[:160]
    rig.server.script({"small": [{"text": text, "usage": usage, "whole": whole}]})
    backend = rig.backend(stream=not whole)
    completion = await backend.complete("small", Request(ASK.messages, max_output_tokens=50, timeout_s=20))
    assert completion.ignored == (ignored,)
    reply = await rig.chain(backend).call(ASK)
    assert reply.text == text
    rig.within_budget()
    counted = COUNTER.usage(ASK, text)
    if ignored == "usage":
        assert reply.spend.usage.output == counted.output
        assert reply.spend.usage.source == counted.source


async def test_a_swapped_model_is_charged_as_the_one_asked_for_and_marked(rig: Rig) -> None:
    usage = {"prompt_tokens": 15, "completion_tokens": 1}
    rig.server.script({"small": [{"text": "4", "model": "something-else", "usage": usage}]})
    backend = rig.backend()
    completion = await backend.complete("small", Request(ASK.messages, max_output_tokens=50, timeout_s=20))
    assert (completion.model, completion.ignored) == ("something-else", ("model",))
    reply = await rig.chain(backend).call(ASK)
    assert reply.spend.nano_usd == 15 * 1_000 + 1 * 4_000


async def test_cancelling_a_call_ends_its_hold_its_task_and_its_connection(rig: Rig) -> None:
    rig.server.script({"small": [{"text": "4", "gate": "never"}]})
    chain = rig.chain(rig.backend())
    task = asyncio.create_task(chain.call(ASK))
    await asyncio.to_thread(rig.server.wait_for_request)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    rig.within_budget()
    assert rig.meter.statistics().spent.nano_usd > 0, "nobody knows what it has cost: it is charged at its worst"


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def refused() -> str:
    return f"http://127.0.0.1:{closed_port()}/v1"


@pytest.fixture
async def hung() -> AsyncIterator[str]:
    """A server that takes connections and never says a word."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    server.close()
    for writer in writers:
        writer.close()
    await server.wait_closed()


def certificate(folder: Path) -> ssl.SSLContext:
    """A certificate that nobody trusts, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "untrusted")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "certificate.pem").write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, *plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem")
    return context


@pytest.fixture
async def untrusted(tmp_path: Path) -> AsyncIterator[str]:
    """A TLS server with a certificate of its own making."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificate(tmp_path))
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    server.close()
    await server.wait_closed()


@pytest.fixture(params=["refused", "no such name", "untrusted certificate", "no TLS at all"])
def unreachable(request: pytest.FixtureRequest, untrusted: str, hung: str) -> tuple[str, str]:
    match request.param:
        case "refused":
            return refused(), "does not answer .*Is the server running"
        case "no such name":
            return "http://nobody.invalid/v1", "name of nobody.invalid is not known"
        case "untrusted certificate":
            return untrusted, "certificate that is not trusted .*self.signed"
        case _:
            return f"{refused()}".replace("http:", "https:"), "does not answer"


async def test_what_cannot_be_reached_costs_nothing_and_another_rung_serves(
    rig: Rig, unreachable: tuple[str, str]
) -> None:
    url, words = unreachable
    rig.server.script({"large": [{"text": "4"}]})
    backend = rig.backend(url)
    with pytest.raises(BackendUnavailable, match=words) as raised:
        await backend.complete("small", Request(ASK.messages, max_output_tokens=50, timeout_s=20))
    assert not raised.value.sent
    reply = await rig.chain(backend).call(ASK)
    assert (reply.rung, reply.attempts[0].spend.nano_usd) == ("large", 0)
    rig.within_budget()
    assert not (await backend.probe()).reachable


async def test_what_cannot_be_trusted_is_not_asked_again(rig: Rig, untrusted: str) -> None:
    with pytest.raises(BackendUnavailable) as raised:
        await rig.backend(untrusted, retries=5).complete("small", ASK)
    assert raised.value.lasting


async def test_a_server_that_never_says_a_word_is_given_up_in_time(rig: Rig, hung: str) -> None:
    rig.server.script({"large": [{"text": "4"}]})
    reply = await rig.chain(rig.backend(hung), timeout_s=0.3).call(ASK)
    assert reply.rung == "large"
    assert reply.attempts[0].spend.nano_usd > 0, "it took the request: nobody knows what it has cost"
    rig.within_budget()


def replicated(rig: Rig, *urls: str) -> ReplicatedBackend:
    backend = ReplicatedBackend([Replica(url, rig.backend(url)) for url in urls], retries=0)
    rig.backends.append(backend)
    return backend


async def test_one_of_three_servers_dead_is_noticed_by_nobody(rig: Rig) -> None:
    rig.server.script({"small": [{"text": "4"}]})
    # Two names of one server, so that the dead one is a third.
    backend = replicated(rig, refused(), rig.server.url, rig.server.url.replace("127.0.0.1", "localhost"))
    chain = rig.chain(backend)
    for _ in range(6):
        reply = await chain.call(ASK)
        assert (reply.rung, len(reply.attempts)) == ("small", 1)
    rig.within_budget()
    assert [one.failures > 0 for one in backend.statistics()] == [True, False, False]


async def test_all_servers_dead_is_one_failed_attempt_that_costs_nothing(rig: Rig) -> None:
    rig.server.script({"large": [{"text": "4"}]})
    reply = await rig.chain(replicated(rig, refused(), refused(), refused())).call(ASK)
    assert reply.rung == "large"
    failed = reply.attempts[0]
    assert (failed.outcome, failed.spend.nano_usd) == ("failed", 0)
    assert "None of 3 servers took the call" in failed.reason
    rig.within_budget()


async def test_a_hung_server_among_three_is_left_alone_after_one_call(rig: Rig, hung: str) -> None:
    rig.server.script({"small": [{"text": "4"}], "large": [{"text": "4"}]})
    backend = replicated(rig, hung, rig.server.url)
    chain = rig.chain(backend, timeout_s=0.3)
    for _ in range(4):
        assert (await chain.call(ASK)).text == "4"
    assert backend.statistics()[0].failures >= 1
    rig.within_budget()


async def test_a_storm_of_calls_over_a_failing_server_passes_no_budget(rig: Rig) -> None:
    steps = [
        {"status": 500},
        {"text": "4"},
        {"status": 429},
        {"garbage": "<"},
        {"text": LONG_REPLY, "drop_after": 1},
    ] * 8
    rig.server.script({"small": steps, "large": [{"text": "4"}]})
    chain = rig.chain(rig.backend())
    replies = await asyncio.gather(*(chain.call(ASK) for _ in range(24)), return_exceptions=True)
    assert any(not isinstance(reply, BaseException) for reply in replies)
    rig.within_budget()
