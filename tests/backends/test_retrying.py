"""When a request is sent again, and when not."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.backends import retrying
from agentflow.backends.retrying import full_jitter_s, retried, retry_after_s
from agentflow.errors import BackendError, BackendTimeout, BackendUnavailable, RequestRejected

NOW = datetime.datetime(2026, 11, 21, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.25", 0.25),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:00:30 -0000", 30.0),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("nan", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


@given(st.text(max_size=60))
def test_no_header_whatever_raises(header: str) -> None:
    found = retry_after_s(header, NOW)
    assert found is None or found >= 0


@given(st.integers(1, 1_000))
def test_a_wait_is_anything_up_to_a_cap_that_doubles(tries: int) -> None:
    assert 0 <= full_jitter_s(tries) <= min(0.5 * 2 ** (tries - 1), 8.0)


class Server:
    """Fails as it is told, then replies."""

    def __init__(self, *failures: BackendError) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def send(self) -> str:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "reply"


def unavailable(retry_after: float | None = 0.0, *, lasting: bool = False) -> BackendUnavailable:
    error = BackendUnavailable("busy")
    error.retry_after_s, error.lasting = retry_after, lasting
    return error


async def test_what_generated_nothing_is_sent_again() -> None:
    server = Server(unavailable(), unavailable())
    assert await retried(server.send, 2, 10.0) == "reply"
    assert server.asked == 3


async def test_retries_are_counted() -> None:
    server = Server(*(unavailable() for _ in range(5)))
    with pytest.raises(BackendUnavailable):
        await retried(server.send, 2, None)
    assert server.asked == 3


@pytest.mark.parametrize(
    "error",
    [
        BackendError("500"),
        BackendTimeout("late"),
        RequestRejected("400"),
        unavailable(lasting=True),
        unavailable(retry_after=60.0),
    ],
)
async def test_nothing_else_is(error: BackendError) -> None:
    server = Server(error)
    with pytest.raises(type(error)):
        await retried(server.send, 3, None)
    assert server.asked == 1


async def test_a_wait_that_would_pass_the_requests_own_time_is_not_begun() -> None:
    server = Server(unavailable(retry_after=5.0))
    with pytest.raises(BackendUnavailable) as raised:
        await retried(server.send, 3, 1.0)
    assert server.asked == 1
    assert not raised.value.sent, "nothing was generated, and nothing is charged"


async def test_without_a_word_from_the_server_waits_are_random(monkeypatch: pytest.MonkeyPatch) -> None:
    caps: list[float] = []

    def lowest(low: float, high: float) -> float:
        caps.append(high)
        return low

    monkeypatch.setattr(retrying.random, "uniform", lowest)
    server = Server(*(unavailable(None) for _ in range(6)))
    assert await retried(server.send, 6, None) == "reply"
    assert caps == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
