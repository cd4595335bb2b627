from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.backends.base import Probe
from agentflow.backends.cassette import Cassette, RecordingBackend, ReplayBackend, on_cassette, open_cassette
from agentflow.backends.exchange import Exchange, from_line, question, readable, to_line
from agentflow.errors import (
    BackendTimeout,
    BackendUnavailable,
    CassetteMiss,
    CassetteUnwritable,
    ConfigError,
    ConnectionDropped,
)
from agentflow.messages import Completion, Delta, Image, MeasuredJoules, Message, Request, Timings, TokenUsage, ToolCall


def ask(text: str, **facts: object) -> Request:
    return replace(Request((Message("system", "Be brief."), Message("user", text)), max_output_tokens=50), **facts)


def reply(text: str, output: int = 3) -> Completion:
    return Completion(text, "m-2026", TokenUsage(9, output, source="provider"), Timings(0.25, 0.1))


class Echo:
    """A backend of this test: replies with the last message and how often it was asked, a word at a time."""

    provider = "echo"
    in_process = False

    def __init__(self) -> None:
        self.asked = 0
        self.closed = False
        self.reached = asyncio.Event()
        self.failing: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        self.asked += 1
        number = self.asked
        self.reached.set()
        if self.gate is not None:
            await self.gate.wait()
        text = f"{request.messages[-1].content} ({number})"
        for word in text.split(" "):
            if tell is not None:
                tell(Delta(word))
        if self.failing is not None:
            raise self.failing
        return reply(text)

    async def probe(self) -> Probe:
        return Probe(True, "echo")

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "run.jsonl"


async def record(path: Path, *requests: Request) -> list[Completion]:
    backend = RecordingBackend(Echo(), Cassette(path), rung="small")
    return [await backend.complete("m", request) for request in requests]


def replay(path: Path, rung: str = "small") -> ReplayBackend:
    return ReplayBackend(Cassette(path), rung=rung)


async def test_a_replay_gives_what_was_recorded(path: Path) -> None:
    recorded = await record(path, ask("one"), ask("two"))
    again = replay(path)
    assert [await again.complete("m", ask(text)) for text in ("two", "one")] == recorded[::-1]
    assert again.provider == "echo"
    assert (await again.probe()).detail == "2 recorded replies on run.jsonl"


async def test_every_fact_of_a_reply_comes_back(path: Path) -> None:
    whole = Completion(
        "text\nof\u2028lines \ud800",
        "m",
        TokenUsage(9, 3, 2, 1, 1, "server", 1, 5),
        Timings(1.5, 0.1, 0.2, 0.3, 0.4),
        "tool_calls",
        "id-1",
        (ToolCall("c", "look", '{"a": 1}'),),
        (-0.1, -2.5),
        3.5,
        7.0,
        MeasuredJoules(1.0, 0.5, 1.5, False, "board", ("shared",)),
        {"seen": ["at", 1]},
        ("seed",),
    )
    line = to_line(Exchange("small", "p", "m", "d", 1, {"messages": []}, whole, ("text", "s")))
    assert line.count(b"\n") == 1
    back = from_line(json.loads(line), 2)
    assert back.outcome == whole
    assert back.deltas == ("text", "s")


@given(st.text(), st.integers(0, 10**8), st.lists(st.floats(max_value=0, allow_nan=False, allow_infinity=False)))
def test_any_reply_comes_back(text: str, tokens: int, logprobs: list[float]) -> None:
    told = replace(reply(text, tokens), logprobs=tuple(logprobs) or None)
    assert from_line(json.loads(to_line(Exchange("r", "p", "m", "d", 1, {}, told))), 1).outcome == told


async def test_equal_requests_get_their_replies_in_the_order_they_were_asked(path: Path) -> None:
    inner = Echo()
    gates = [asyncio.Event(), asyncio.Event()]
    backend = RecordingBackend(inner, Cassette(path))
    async with asyncio.TaskGroup() as group:
        first_asked = []
        for gate in gates:
            inner.gate = gate
            first_asked.append(group.create_task(backend.complete("m", ask("same"))))
            inner.reached.clear()
            await inner.reached.wait()
        gates[1].set()
        await first_asked[1]
        gates[0].set()
    again = ReplayBackend(Cassette(path))
    assert [(await again.complete("m", ask("same"))).text for _ in gates] == ["same (1)", "same (2)"]


async def test_the_pieces_are_told_again(path: Path) -> None:
    heard: list[str] = []
    await record(path, ask("a few words"))
    await replay(path).complete("m", ask("a few words"), lambda delta: heard.append(delta.text))
    assert heard == ["a", "few", "words", "(1)"]


async def test_an_error_is_raised_again_with_what_it_says_of_costs(path: Path) -> None:
    inner, cassette = Echo(), Cassette(path)
    backend = RecordingBackend(inner, cassette)
    busy = BackendUnavailable("busy, key sk-abcdefgh12345678")
    busy.retry_after_s = 2.5
    for failure in (busy, ConnectionDropped("gone")):
        inner.failing = failure
        with pytest.raises(type(failure)):
            await backend.complete("m", ask("a b"))
    again, heard = ReplayBackend(Cassette(path)), []
    with pytest.raises(BackendUnavailable, match=r"^busy, key …$") as unavailable:
        await again.complete("m", ask("a b"))
    assert (unavailable.value.sent, unavailable.value.retry_after_s) == (False, 2.5)
    with pytest.raises(ConnectionDropped) as dropped:
        await again.complete("m", ask("a b"), lambda delta: heard.append(delta.text))
    assert dropped.value.sent
    assert heard == ["a", "b", "(2)"]


async def test_a_call_whose_time_ran_out_is_recorded_and_one_that_was_cancelled_is_not(path: Path) -> None:
    inner = Echo()
    inner.gate = asyncio.Event()
    backend = RecordingBackend(inner, Cassette(path))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await backend.complete("m", ask("slow", timeout_s=0.05))
    inner.reached.clear()
    task = asyncio.create_task(backend.complete("m", ask("cancelled", timeout_s=60)))
    await inner.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(Cassette(path).exchanges) == 1
    with pytest.raises(BackendTimeout):
        await ReplayBackend(Cassette(path)).complete("m", ask("slow", timeout_s=1))


async def test_a_request_bounded_otherwise_gets_a_reply_that_keeps_to_its_bound(path: Path) -> None:
    await record(path, ask("x", max_output_tokens=40))
    assert (await replay(path).complete("m", ask("x", max_output_tokens=3))).usage.output == 3
    with pytest.raises(CassetteMiss, match="max_output_tokens 40 there, 2 here"):
        await replay(path).complete("m", ask("x", max_output_tokens=2))


async def test_a_miss_names_the_nearest_request_and_what_differs(path: Path) -> None:
    await record(path, ask("Name the capital of France."), ask("Sort these numbers: 3 1 2"))
    with pytest.raises(CassetteMiss) as miss:
        await replay(path).complete("m", ask("Name the capital of Spain.", temperature=0.7))
    said = str(miss.value)
    assert "\n" not in said
    assert "line 2" in said
    assert "'France.' there, 'Spain.' here" in said
    assert "temperature 0.0 there, 0.7 here" in said


async def test_a_miss_says_which_earlier_message_differs_and_who_was_asked(path: Path) -> None:
    await record(path, ask("hello"))
    other = Request((Message("system", "Be verbose."), Message("user", "hello")), max_output_tokens=50)
    with pytest.raises(CassetteMiss, match=r"message 1 \(system\): 'brief.' there, 'verbose.' here"):
        await replay(path).complete("m", other)
    with pytest.raises(CassetteMiss, match="Nearest of 'small' is line 2; what differs: nothing but who was asked"):
        await replay(path, "large").complete("m", ask("hello"))


async def test_a_reply_is_given_as_often_as_it_was_recorded(path: Path) -> None:
    await record(path, ask("hello"))
    again = replay(path)
    await again.complete("m", ask("hello"))
    with pytest.raises(CassetteMiss, match="recorded once, and has been given as often"):
        await again.complete("m", ask("hello"))


async def test_pictures_and_keys_are_not_on_it(path: Path) -> None:
    picture = Image(b"\x89PNG secret pixels", "image/png", 4, 3)
    turn = Message("user", "my key is sk-abcdefghijklmnop", images=(picture,))
    await RecordingBackend(Echo(), Cassette(path)).complete("m", Request((turn,)))
    lines = path.read_text().splitlines()
    image = json.loads(lines[1])["request"]["messages"][0]["images"][0]
    assert set(image) == {"sha256", "media_type", "width", "height"}
    assert "sk-abc" not in json.dumps(json.loads(lines[1])["request"])
    other = replace(turn, images=(replace(picture, data=b"other"),))
    with pytest.raises(CassetteMiss, match="its last message: other images"):
        await ReplayBackend(Cassette(path)).complete("m", Request((other,)))


async def test_many_calls_at_once_write_whole_lines(path: Path) -> None:
    cassettes = [Cassette(path), Cassette(path)]
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            backend = RecordingBackend(Echo(), cassettes[number % 2])
            group.create_task(backend.complete("m", ask(f"{number} " * 500)))
    assert len(Cassette(path).exchanges) == 100


async def test_a_line_that_a_dead_process_left_torn_is_dropped(path: Path) -> None:
    await record(path, ask("one"), ask("two"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert len(Cassette(path).exchanges) == 1
    await record(path, ask("two"))
    assert [e.request["messages"][-1]["content"] for e in Cassette(path).exchanges] == ["one", "two"]


async def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(path, ask("one"))
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(CassetteUnwritable, match="No space left"):
        await record(path, ask("two"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json\n", "line 1"),
        ("[]\n", "not an object"),
        ('{"agentflow_cassette": 9}\n', "of version 9"),
        ('{"agentflow_cassette": 1}\n{"rung": "a"}\n', "line 2: provider is missing"),
        ('{"agentflow_cassette": 1}\n{"rung": 3}\n', "line 2: rung must be text"),
        ("plain text without an end of line", "not a cassette"),
    ],
)
def test_what_is_no_cassette_is_told_by_line(path: Path, text: str, said: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Cassette(path)


async def test_a_damaged_reply_is_told_by_field(path: Path) -> None:
    await record(path, ask("one"))
    path.write_text(path.read_text().replace('"input": 9', '"input": "many"'))
    with pytest.raises(ConfigError, match=r"line 2: completion\.usage\.input"):
        Cassette(path)


async def test_modes(path: Path) -> None:
    def never() -> Echo:
        raise AssertionError("a replay makes no backend")

    with pytest.raises(ConfigError, match="No cassette"):
        open_cassette(path, "replay")
    await on_cassette(open_cassette(path, "record"), "record", "small", Echo).complete("m", ask("one"))
    with pytest.raises(ConfigError, match="exists"):
        open_cassette(path, "record")
    again = on_cassette(open_cassette(path, "replay"), "replay", "small", never, in_process=True)
    assert (await again.complete("m", ask("one"))).text == "one (1)"
    assert again.in_process
    inner = Echo()
    auto = on_cassette(open_cassette(path, "auto"), "auto", "small", lambda: inner)
    assert (await auto.complete("m", ask("one"))).text == "one (1)"
    assert inner.asked == 0
    assert (await auto.complete("m", ask("new"))).text == "new (1)"
    assert (await auto.probe()).detail == "echo"
    await auto.aclose()
    assert inner.closed
    assert len(Cassette(path).exchanges) == 2


@given(st.lists(st.sampled_from("abc"), max_size=12), st.randoms())
async def test_any_run_is_replayed_in_any_order_of_its_questions(texts: list[str], order: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        recorded = await record(path, *map(ask, texts))
        again = replay(path)
        left = {text: [reply for asked, reply in zip(texts, recorded, strict=True) if asked == text] for text in texts}
        for text in order.sample(texts, len(texts)):
            assert await again.complete("m", ask(text)) == left[text].pop(0)


def test_the_question_is_the_request_without_its_bound() -> None:
    assert question(ask("x", max_output_tokens=1)) == question(ask("x", timeout_s=3, priority=1, cache_salt="t"))
    assert question(ask("x")) != question(ask("y"))
    assert "stop" not in readable(ask("x"))
