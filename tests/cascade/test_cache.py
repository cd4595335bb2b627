from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import Labels, MemoryLedger
from agentflow.budget.ledger.sqlite import sqlite_ledger
from agentflow.budget.meter import Meter
from agentflow.budget.report import spend_report
from agentflow.cascade.cache import ReplyCache, Reuse, Reusing, key_of
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.checks import Candidate
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Verdict
from agentflow.cascade.reply_file import KeptReply, ReplyFile
from agentflow.cascade.services import Services
from agentflow.chain import Chain
from agentflow.config import Settings
from agentflow.errors import CallFailed, UsageError
from agentflow.flow import Flow
from agentflow.messages import Completion, Image, Message, Request, Timings, TokenUsage, ToolSpec
from tests.cascade.test_cascade import _backends_are_closed, rung
from tests.servers.openai_server import ScriptedServer

__all__ = ["_backends_are_closed"]
HOUR = Reuse("1h")
ASK = "What is the capital of France?"


class Sum(BaseModel):
    total: int


class Now:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
async def cache(tmp_path: Path, now: Now) -> AsyncIterator[ReplyCache]:
    it = ReplyCache(ReplyFile(tmp_path / "replies.db", 1_000_000, now), now=now)
    yield it
    await it.aclose()


def chain(cache: ReplyCache, *rungs: object, tenant: str = "", budget: Budget | None = None) -> Chain:
    labels = Labels(tenant=tenant)
    cascade = Cascade("test", rungs)  # type: ignore[arg-type]
    return Chain(Meter("chain", budget), cascade, MemoryLedger(), labels=labels, services=Services(replies=cache))


def done(text: str = "yes", finish: str = "stop") -> Completion:
    return Completion(text, "m", TokenUsage(3, 1), Timings(0.1), finish)  # type: ignore[arg-type]


async def test_an_equal_call_is_answered_by_the_earlier_reply_at_no_cost(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    scripted_server.script({"small": [{"text": "Paris"}, {"text": "another"}]})
    small = rung(scripted_server, "small")
    first = await chain(cache, small).call(ASK, reuse=HOUR)
    it = chain(cache, small)
    again = await it.call(ASK, reuse=HOUR)
    assert (first.text, first.reused) == ("Paris", False)
    assert (again.text, again.reused, again.rung, again.kind) == ("Paris", True, "small", "model")
    assert (again.spend.nano_usd, again.spend.calls, again.spend.tokens, it.spend.calls) == (0, 0, 0, 0)
    assert [a.reason for a in again.attempts] == ["given again, from 0 s ago"]
    assert len(scripted_server.requests()) == 1


async def test_without_opting_in_nothing_is_looked_up_and_nothing_kept(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    await it.call(ASK)
    await it.call(ASK)
    assert len(scripted_server.requests()) == 2
    assert not cache.file.path.exists()


async def test_a_reply_that_is_too_old_is_asked_for_anew(
    scripted_server: ScriptedServer, cache: ReplyCache, now: Now
) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    await it.call(ASK, reuse=HOUR)
    now.seconds += 1_800
    assert (await it.call(ASK, reuse=Reuse("1h"))).attempts[0].reason == "given again, from 30 min ago"
    assert not (await it.call(ASK, reuse=Reuse("20m"))).reused
    now.seconds += 3_601
    assert not (await it.call(ASK, reuse=HOUR)).reused


async def test_calls_at_the_same_time_ask_once(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    scripted_server.script({"small": [{"text": "Paris"}]})
    it = chain(cache, rung(scripted_server, "small"))
    replies = await asyncio.gather(*(it.call(ASK, reuse=HOUR) for _ in range(20)))
    assert {reply.text for reply in replies} == {"Paris"}
    assert sum(reply.reused for reply in replies) == 19
    assert len(scripted_server.requests()) == 1


async def test_when_the_one_that_asks_fails_the_next_one_asks(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    scripted_server.script({"small": [{"status": 500}, {"text": "Paris"}]})
    it = chain(cache, rung(scripted_server, "small"))
    replies = await asyncio.gather(*(it.call(ASK, reuse=HOUR) for _ in range(3)), return_exceptions=True)
    assert [type(reply) for reply in replies].count(CallFailed) == 1
    assert len(scripted_server.requests()) == 2


async def test_a_call_waits_for_an_equal_one_no_longer_than_its_own_time_allows(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    scripted_server.script({"small": [{"gate": "go", "text": "Paris"}, {"text": "Paris, at once"}]})
    it = chain(cache, rung(scripted_server, "small"))
    async with asyncio.TaskGroup() as group:
        patient = group.create_task(it.call(ASK, reuse=HOUR))
        while not scripted_server.requests():  # noqa: ASYNC110
            await asyncio.sleep(0)
        hurried = await it.call(ASK, reuse=HOUR, timeout_s=1.0)
        scripted_server.release("go")
    assert (hurried.text, patient.result().text) == ("Paris, at once", "Paris")
    assert hurried.request is not None and hurried.request.timeout_s is not None
    assert hurried.request.timeout_s <= 0.5


async def test_a_waiting_call_that_is_cancelled_holds_up_nobody(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    scripted_server.script({"small": [{"gate": "go", "text": "Paris"}]})
    it = chain(cache, rung(scripted_server, "small"), budget=Budget(usd=1))
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(it.call(ASK, reuse=HOUR))
        waiting = [group.create_task(it.call(ASK, reuse=HOUR)) for _ in range(2)]
        while not scripted_server.requests():  # noqa: ASYNC110
            await asyncio.sleep(0)
        waiting[0].cancel()
        scripted_server.release("go")
    assert not asking.result().reused
    assert waiting[1].result().reused
    assert it.meter.room().microjoules is None
    assert it.statistics().spent.calls == 1


async def test_only_accepted_and_whole_replies_are_kept(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    scripted_server.script(
        {"small": [{"json": {"total": 5}}, {"json": {"total": 5}}], "cut": [{"text": "Par", "finish_reason": "length"}]}
    )

    def adds_up(candidate: Candidate) -> Verdict:
        return Verdict(candidate.output.total == 4, reason="no")

    it = chain(cache, rung(scripted_server, "small"))
    with pytest.raises(CallFailed):
        await it.call(ASK, output=Sum, checks=(adds_up,), reuse=HOUR)
    await chain(cache, rung(scripted_server, "cut")).call(ASK, reuse=HOUR)
    assert (await cache.statistics()).replies == 0


async def test_a_kept_reply_is_judged_again_by_the_checks_of_the_call(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    scripted_server.script({"small": [{"json": {"total": 4}}, {"json": {"total": 6}}]})
    wanted = 4

    def is_it(candidate: Candidate) -> Verdict:
        return Verdict(candidate.output.total == wanted, reason="no")

    it = chain(cache, rung(scripted_server, "small"))
    assert (await it.call(ASK, output=Sum, checks=(is_it,), reuse=HOUR)).output.total == 4
    assert (await it.call(ASK, output=Sum, checks=(is_it,), reuse=HOUR)).reused
    wanted = 6
    changed = await it.call(ASK, output=Sum, checks=(is_it,), reuse=HOUR)
    assert (changed.output.total, changed.reused) == (6, False)


async def test_the_larger_rungs_reply_serves_again_without_asking_the_smaller(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    scripted_server.script({"small": [{"text": "four"}], "large": [{"json": {"total": 4}}]})
    it = chain(cache, rung(scripted_server, "small"), rung(scripted_server, "large"))
    await it.call(ASK, output=Sum, reuse=HOUR)
    asked = len(scripted_server.requests())
    again = await it.call(ASK, output=Sum, reuse=HOUR)
    assert (again.rung, again.output.total, again.reused) == ("large", 4, True)
    assert len(scripted_server.requests()) == asked


async def test_tenants_share_nothing_unless_they_are_told_to(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    small = rung(scripted_server, "small")
    await chain(cache, small, tenant="acme").call(ASK, reuse=HOUR)
    assert not (await chain(cache, small, tenant="other").call(ASK, reuse=HOUR)).reused
    assert not (await chain(cache, small).call(ASK, reuse=HOUR)).reused
    assert (await chain(cache, small, tenant="acme").call(ASK, reuse=HOUR)).reused
    shared = ReplyCache(cache.file, share_tenants=True, now=cache.now)
    await chain(shared, small, tenant="acme").call(ASK, reuse=HOUR)
    assert (await chain(shared, small, tenant="other").call(ASK, reuse=HOUR)).reused


async def test_the_ledger_has_an_entry_of_no_cost_and_the_report_counts_it(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    await it.call(ASK, reuse=HOUR)
    await it.call(ASK, reuse=HOUR)
    report = spend_report(await it._ledger.entries(), by="model")
    assert (report.total.reused, report.total.attempts["settled"], report.total.spent.calls) == (1, 2, 1)
    assert report.total.whole_call is not None
    assert report.total.whole_call.replies == 1


async def test_a_repeated_job_is_given_the_reused_reply_again_though_the_cache_is_gone(
    scripted_server: ScriptedServer, cache: ReplyCache, tmp_path: Path, now: Now
) -> None:
    cascade = Cascade("test", (rung(scripted_server, "small"),))
    await chain(cache, *cascade.rungs).call(ASK, reuse=HOUR)
    for _ in range(2):
        ledger = sqlite_ledger(tmp_path / "ledger.db")
        it = Chain(Meter("job"), cascade, ledger, services=Services(replies=cache))
        reply = await it.call(ASK, reuse=HOUR)
        await ledger.aclose()
        now.seconds += 1e6
        assert reply.reused
    assert reply.attempts[0].replayed
    assert len(scripted_server.requests()) == 1


BASE = Request((Message("system", "s"), Message("user", "u")))
OTHERS = [
    dataclasses.replace(BASE, temperature=0.5),
    dataclasses.replace(BASE, seed=1),
    dataclasses.replace(BASE, max_output_tokens=5),
    dataclasses.replace(BASE, stop=("x",)),
    dataclasses.replace(BASE, tools=(ToolSpec("t", "d", {}),)),
    dataclasses.replace(BASE, messages=(Message("system", "t"), Message("user", "u"))),
    dataclasses.replace(BASE, messages=(Message("system", "s"), Message("user", "u", images=(Image(b"1", "", 1, 1),)))),
    dataclasses.replace(BASE, messages=(Message("system", "s"), Message("user", "u", images=(Image(b"2", "", 1, 1),)))),
]


def test_whatever_may_change_a_reply_changes_its_key(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    small = rung(scripted_server, "small")

    def judge(candidate: Candidate) -> Verdict:
        return Verdict(True)

    mine = Reusing(cache, HOUR, "acme")
    scope = mine.scope((small,), Policy(), ())
    keys = {key_of(scope, request) for request in [BASE, *OTHERS]}
    assert len(keys) == 1 + len(OTHERS)
    scopes = [
        scope,
        Reusing(cache, HOUR, "other").scope((small,), Policy(), ()),
        mine.scope((small,), Policy(accept=0.9), ()),
        mine.scope((small,), Policy(), (judge,)),
        mine.scope((dataclasses.replace(small, model="other"),), Policy(), ()),
        mine.scope((dataclasses.replace(small, served_by="http://elsewhere"),), Policy(), ()),
        mine.scope((small, dataclasses.replace(small, name="b")), Policy(), ()),
    ]
    assert len(set(scopes)) == len(scopes)
    dearer = dataclasses.replace(small, timeout_s=5.0, region="FRA")
    assert mine.scope((dearer,), Policy(), ()) == scope


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_two_questions_have_one_key(a: str, b: str, c: str, d: str) -> None:
    one = Request((Message("system", a), Message("user", b)))
    other = Request((Message("system", c), Message("user", d)))
    assert (key_of("s", one) == key_of("s", other)) == ((a, b) == (c, d))


async def test_the_file_stays_within_its_size_and_what_was_used_last_stays(tmp_path: Path, now: Now) -> None:
    file = ReplyFile(tmp_path / "r.db", 20_000, now)
    for number in range(100):
        now.seconds += 100
        await file.keep(KeptReply(f"k{number}", "r", done("x" * 500), now()), 1e9)
        assert await file.find("k0", 1e9) is not None
    counted = await file.statistics()
    assert 5 < counted.replies < 40
    assert counted.bytes <= 20_000
    assert await file.find("k99", 1e9) is not None
    assert await file.find("k50", 1e9) is None
    await file.keep(KeptReply("huge", "r", done("x" * 50_000), now()), 1e9)
    assert await file.find("huge", 1e9) is None
    await file.aclose()


async def test_a_broken_file_is_made_anew_with_a_warning(
    tmp_path: Path, now: Now, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"this is no database at all" * 100)
    file = ReplyFile(path, 20_000, now)
    await file.keep(KeptReply("k", "r", done(), now()), 60)
    assert (await file.find("k", 60)).completion == done()  # type: ignore[union-attr]
    assert "is broken" in caplog.text
    await file.aclose()


async def test_a_file_that_cannot_be_written_fails_no_call(
    scripted_server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").touch()
    cache = ReplyCache(ReplyFile(tmp_path / "folder" / "r.db", 20_000))
    it = chain(cache, rung(scripted_server, "small"))
    assert not (await it.call(ASK, reuse=HOUR)).reused
    assert not (await it.call(ASK, reuse=HOUR)).reused
    assert caplog.text.count("cannot be used") == 1
    await cache.aclose()


WRITER = """
import asyncio, sys
from pathlib import Path
from agentflow.cascade.reply_file import KeptReply, ReplyFile
from agentflow.messages import Completion, Timings, TokenUsage

async def main():
    file = ReplyFile(Path(sys.argv[1]), 10_000_000)
    for n in range(60):
        completion = Completion("yes", "m", TokenUsage(3, 1), Timings(0.1))
        await file.keep(KeptReply(f"{sys.argv[2]}-{n}", "r", completion, 2e9), 1e9)
    await file.aclose()
asyncio.run(main())
"""


async def test_two_processes_write_one_file_and_each_finds_what_the_other_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    command = (sys.executable, "-c", WRITER, str(path))
    writers = [await asyncio.create_subprocess_exec(*command, name) for name in ("a", "b")]
    assert [await writer.wait() for writer in writers] == [0, 0]
    file = ReplyFile(path, 10_000_000)
    assert (await file.statistics()).replies == 120
    assert await file.find("a-59", 1e9) is not None
    await file.aclose()


async def test_a_flow_keeps_replies_where_the_configuration_says(scripted_server: ScriptedServer, here: Path) -> None:
    own = {"backend": "openai", "base_url": scripted_server.url, "price": {"input": 1, "output": 1}}
    settings = Settings.model_validate({"models": {"small": own}, "reuse": {"path": "kept/r.db"}})
    for reused in (False, True):
        async with Flow(settings) as flow, flow.chain("ask") as it:
            assert (await it.call(ASK, reuse=HOUR)).reused is reused
    assert (here / "kept" / "r.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("within", ["", "an hour", "0s", "-1h", -1, 0, float("nan"), "99999999999w"])
def test_an_age_that_cannot_be_is_refused(within: str | float) -> None:
    with pytest.raises(UsageError):
        Reuse(within)


def test_a_similarity_that_cannot_be_is_refused() -> None:
    for similarity in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="similarity"):
            Reuse("1h", similarity=similarity)
