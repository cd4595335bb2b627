"""The clients where things go wrong between them and a server: nothing is lost, nothing is told twice, no error is odd.

Most of it over a transport that is a function: what a proxy, or a server of another version, would answer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentflow import ApiError, AsyncClient, Client
from agentflow.client.stream import Frames
from agentflow.errors import JobFailed, UnknownJob, UsageError
from agentflow.jobs.job import JobState
from tests.servers.api import Api, toml
from tests.servers.openai_server import ScriptedServer

Answer = Callable[[httpx.Request], httpx.Response]
BASE = "http://server"
pytestmark = pytest.mark.timeout(90)
TIME = "2026-11-21T12:00:00Z"
VIEW: dict[str, Any] = {
    "id": "j-1", "status": "running", "poll_after": 1.0, "query": "Why?", "effort": "auto", "budget": {}, "spend": {},
    "created": TIME, "runs": 1, "failures": 0, "recoveries": 0, "events": 1, "metadata": {},
    "urls": dict.fromkeys(
        ("self", "result", "events", "sources", "claims", "spend", "report_md", "report_html"), "/v1/research/j-1"
    ),
}  # fmt: skip


def client(answer: Answer) -> Client:
    return Client(BASE, http=httpx.Client(transport=httpx.MockTransport(answer)))


def event(number: int, **data: Any) -> str:
    body = json.dumps({"number": number, "time": TIME, "kind": "note", "data": data}, ensure_ascii=False)
    return f"id: {number}\nevent: note\ndata: {body}\n\n"


END = 'event: end\ndata: {"status": "completed"}\n\n'


def test_what_a_later_version_tells_besides_is_passed_over() -> None:
    later = {**VIEW, "mood": "calm", "spend": {"calls": 2, "kelvin": 3}}
    with client(lambda _: httpx.Response(200, json=later)) as mine:
        assert mine.get("j-1").spend.calls == 2
    with client(lambda _: httpx.Response(200, json={"id": "j-1"})) as mine, pytest.raises(ApiError, match="version"):
        mine.get("j-1")


def test_what_stands_in_front_of_a_server_that_starts_again_is_waited_for() -> None:
    answers = iter([httpx.Response(502, text="<html>"), httpx.Response(503), httpx.Response(200, json=VIEW)])
    with client(lambda _: next(answers)) as mine:
        assert mine.get("j-1").id == "j-1"
    tries = iter([httpx.Response(502, text="<html>")] * 2)
    with client(lambda _: next(tries)) as mine, pytest.raises(ApiError) as caught:
        mine.upload("tides", [])
    assert caught.value.status == 502, "what may do harm twice is sent once"
    assert len(list(tries)) == 1


def test_a_server_that_is_elsewhere_is_named() -> None:
    answer = httpx.Response(301, headers={"Location": "https://server/v1/research/j-1"})
    with client(lambda _: answer) as mine, pytest.raises(ApiError, match="https://server"):
        mine.get("j-1")


def test_every_kind_of_problem_has_its_error() -> None:
    for kind, wanted in [("not-found", UnknownJob), ("job-failed", JobFailed), ("unsupported-media-type", UsageError),
                         ("rate-limited", ApiError)]:  # fmt: skip
        body = {"type": f"urn:agentflow:problem:{kind}", "detail": "Told.", "status": 400}
        with client(lambda _, body=body: httpx.Response(400, json=body)) as mine, pytest.raises(wanted, match="Told"):
            mine.get("j-1")


class _Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces, and may break off."""

    def __init__(self, text: str, *, breaks: bool, size: int = 7) -> None:
        raw = text.encode()
        self._pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._breaks:
            raise httpx.ReadError("the line was cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def streams(*texts: str) -> tuple[Answer, list[int]]:
    """A server whose streams break off one after the other; where each was asked to go on."""
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(int(request.url.params["since"]))
        text = texts[len(asked) - 1]
        return httpx.Response(200, stream=_Pieces(text, breaks=END not in text))

    return answer, asked


def test_a_stream_is_taken_up_where_it_broke_off() -> None:
    # The second begins with what is known already; the third breaks in the middle of an event.
    texts = (event(1) + event(2), event(2) + event(3)[:-9], event(3) + event(4) + END)
    answer, asked = streams(*texts)
    with client(answer) as mine:
        assert [one.number for one in mine.events("j-1")] == [1, 2, 3, 4]
    assert asked == [0, 2, 2]


async def test_an_event_loop_does_the_same() -> None:
    answer, asked = streams(event(1), ": still here\n\n", event(2) + END)
    async with AsyncClient(BASE, http=httpx.AsyncClient(transport=httpx.MockTransport(answer))) as mine:
        assert [one.number async for one in mine.events("j-1")] == [1, 2]
    assert asked == [0, 1, 1]


def test_a_server_that_says_it_can_go_on_is_believed_and_one_that_says_no_too() -> None:
    away = 'event: error\ndata: {"type": "x:unavailable", "retryable": true, "status": 503}\n\n'
    gone = 'event: error\ndata: {"type": "x:not-found", "detail": "It is gone.", "retryable": false}\n\n'
    answer, asked = streams(event(1) + away, event(2) + gone)
    with client(answer) as mine:
        heard = mine.events("j-1")
        assert [next(heard).number, next(heard).number] == [1, 2]
        with pytest.raises(UnknownJob, match="gone"):
            next(heard)
    assert asked == [0, 1]


@pytest.mark.parametrize("size", [1, 5, 4_096])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_where_the_format_says_and_nowhere_else(size: int, end: str) -> None:
    text = "a\u2028b\u0085c\x0cd\u001ce"
    frames = Frames()
    raw = (f": hello\n\ndata: {text}\ndata: more\n\nevent: x\ndata: y\n\n").replace("\n", end).encode()
    heard = [frame for start in range(0, len(raw), size) for frame in frames.take(raw[start : start + size])]
    assert [(frame.kind, frame.data) for frame in heard] == [("message", f"{text}\nmore"), ("x", "y")]


@pytest.fixture
def job(api: Api, models: ScriptedServer) -> str:
    with api.client() as http:
        made = http.post("/v1/collections", json={"name": "c"}).json()["id"]
        http.post(f"/v1/collections/{made}/files", files={"file": ("a.md", "Tides rise.")}).raise_for_status()
        later = "2099-01-01T00:00:00Z"
        asked = {"query": "Why?\u2028And how?\u0085", "sources": {"collections": [made]}, "deferrable_until": later}
        return http.post("/v1/research", json=asked).json()["id"]


def test_a_job_that_ends_badly_while_it_is_waited_for_is_told_as_it_is(api: Api, job: str) -> None:
    def cancel() -> None:
        with api.client() as http:
            while "agentflow_result_waits 1.0" not in http.get("/metrics").text:
                pass
            http.post(f"/v1/research/{job}/cancel")

    other = threading.Thread(target=cancel)
    other.start()
    with Client(api.url) as mine:
        assert mine.wait(job).status is JobState.CANCELLED
        other.join()
        with pytest.raises(JobFailed):
            mine.result(job)


def test_any_reader_of_lines_can_read_the_events(api: Api, job: str) -> None:
    with api.client() as http, http.stream("GET", f"/v1/research/{job}/events") as stream:
        # httpx ends lines at U+2028 too.
        data = next(line for line in stream.iter_lines() if line.startswith("data: "))
    assert json.loads(data[6:])["data"]["query"] == "Why?\u2028And how?\u0085"


def test_readers_go_on_over_a_server_that_is_killed(models: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "agentflow.toml").write_text(toml(models))
    first = Api(tmp_path)
    port = first.url.rsplit(":", 1)[1]
    with Client(first.url) as mine:
        (tmp_path / "a.md").write_text("Tides rise.")
        made = mine.upload("c", [tmp_path / "a.md"])
        job = mine.submit("Why?", sources={"collections": [made]}, deferrable_until="2099-01-01T00:00:00Z")
        heard = mine.events(job.id)
        numbers = [next(heard).number]
        first.kill()
        second = Api(tmp_path, "--port", port)
        try:
            assert mine.stop(job.id).id == job.id
            mine.cancel(job.id)
            numbers += [one.number for one in heard]
        finally:
            second.kill()
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 1
