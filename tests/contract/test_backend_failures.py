"""One suite for every backend: what ``Backend`` promises when there is no reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from agentflow.errors import BackendError, BackendTimeout, BackendUnavailable, ContextOverflow, RequestRejected
from agentflow.messages import Message, OutputSchema, Request
from tests.contract.subjects import OVER_HTTP, SCRIPTED, TINY, Subject

ASK = Request((Message("user", "7+5"),), max_output_tokens=8, timeout_s=30)
# A list that is so long before it may end, that only leaving ends it.
ENDLESS = replace(
    ASK,
    schema=OutputSchema("digits", {"type": "array", "items": {"type": "integer"}, "minItems": 1_000}),
    max_output_tokens=2_000,
)

only_scripted = pytest.mark.parametrize("subject", SCRIPTED, indirect=True)
only_over_http = pytest.mark.parametrize("subject", OVER_HTTP, indirect=True)
only_tiny = pytest.mark.parametrize("subject", TINY, indirect=True)


async def becomes(found: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a state of a process that tells nobody when it changes."""
    async with asyncio.timeout(10):
        while not await found():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_time_limit_ends_the_call(subject: Subject) -> None:
    subject.script({"text": "12", "gate": "never"})
    request = replace(ENDLESS, timeout_s=0.1) if subject.tiny else replace(ASK, timeout_s=0.3)
    if subject.tiny:
        await subject.backend.complete(subject.model, ASK)
    with pytest.raises(BackendTimeout) as error:
        await subject.backend.complete(subject.model, request)
    assert error.value.sent


@only_over_http
async def test_cancelling_lets_go_of_the_server(subject: Subject) -> None:
    assert subject.server is not None
    server = subject.server
    subject.script({"text": "12", "gate": "never"})
    call = asyncio.create_task(subject.backend.complete(subject.model, ASK))

    async def arrived() -> bool:
        return bool(await asyncio.to_thread(server.requests))

    async def left() -> bool:
        return await asyncio.to_thread(server.disconnects) == 1

    await becomes(arrived)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await becomes(left)


@only_tiny
async def test_cancelling_stops_the_generation(subject: Subject) -> None:
    assert subject.generated is not None
    await subject.backend.complete(subject.model, ASK)
    before = await asyncio.to_thread(subject.generated)
    begun = asyncio.Event()
    call = asyncio.create_task(subject.backend.complete(subject.model, ENDLESS, lambda _: begun.set()))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # There is one slot: this reply waits for the other's end, and so do the counters.
    await subject.backend.complete(subject.model, ASK)
    assert await asyncio.to_thread(subject.generated) - before < 1_500


async def test_cancelling_before_anything_happens_ends_the_call(subject: Subject) -> None:
    subject.script({"text": "12", "gate": "never"})
    call = asyncio.create_task(subject.backend.complete(subject.model, ASK))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    subject.script({"text": "12"})
    assert (await subject.backend.complete(subject.model, ASK)).text.strip() == "12"


async def test_a_prompt_that_is_too_long_is_told_apart(subject: Subject) -> None:
    message = "This model's maximum context length is 256 tokens. However, your messages resulted in 400 tokens."
    subject.script({"status": 400, "error": {"error": {"message": message, "code": "context_length_exceeded"}}})
    request = replace(ASK, messages=(Message("user", "1+" * 5_000),))
    with pytest.raises(ContextOverflow) as error:
        await subject.backend.complete(subject.model, request)
    assert not error.value.sent


@only_scripted
@pytest.mark.parametrize(
    ("step", "kind", "sent"),
    [
        ({"status": 400}, RequestRejected, False),
        ({"status": 401}, RequestRejected, False),
        ({"status": 404}, RequestRejected, False),
        ({"status": 429}, BackendUnavailable, False),
        ({"status": 503}, BackendUnavailable, False),
        ({"status": 500}, BackendError, True),
    ],
)
async def test_an_error_says_whether_it_may_have_cost(
    subject: Subject, step: dict[str, Any], kind: type[BackendError], sent: bool
) -> None:
    subject.script(step)
    with pytest.raises(kind) as error:
        await subject.backend.complete(subject.model, ASK)
    assert error.value.sent is sent
    assert "\n" not in str(error.value)


@only_tiny
async def test_a_tiny_models_refusal_is_a_refusal(subject: Subject) -> None:
    nonsense = OutputSchema("nonsense", {"type": "no such type"})
    with pytest.raises(RequestRejected):
        await subject.backend.complete(subject.model, replace(ASK, schema=nonsense))
    assert (await subject.backend.complete(subject.model, ASK)).text.strip() == "12"
