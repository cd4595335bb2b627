from __future__ import annotations

import math
import unicodedata
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentflow.budget.ledger import Labels, MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.spend import Quote
from agentflow.cascade.cache import ReplyCache, Reuse
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.reply_file import ReplyFile
from agentflow.cascade.rung import Answer, CodeRung
from agentflow.cascade.semantic_cache import LONGEST, guard
from agentflow.cascade.services import Services
from agentflow.chain import Chain
from agentflow.config import Settings
from agentflow.energy.profiles import CpuProfile
from agentflow.errors import BackendUnavailable, UsageError
from agentflow.flow import Flow
from agentflow.messages import Message, Request, TokenUsage
from tests.cascade.test_cascade import _backends_are_closed, rung
from tests.servers.openai_server import ScriptedServer, ServerProcess

__all__ = ["_backends_are_closed"]
ALIKE = Reuse("1h", similarity=0.9)


def angle(text: str) -> bytes:
    """A vector in the plane: a text says its own angle, in degrees, by how many exclamation marks it has."""
    turn = math.radians(text.count("!"))
    return np.array([math.cos(turn), math.sin(turn)], dtype=np.float32).tobytes()


def embed(text: str) -> Answer:
    return Answer(angle(text), usage=TokenUsage(input=7), nano_usd=70)


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[ReplyCache]:
    it = ReplyCache(ReplyFile(tmp_path / "replies.db", 1_000_000))
    yield it
    await it.aclose()


def chain(cache: ReplyCache, *rungs: object, embedding: CodeRung | None = None, tenant: str = "") -> Chain:
    embedding = embedding or CodeRung("embedding", embed, CpuProfile(), worst=Quote(tokens=10, nano_usd=100))
    return Chain(
        Meter("chain"), Cascade("test", rungs), MemoryLedger(), labels=Labels(tenant=tenant),  # type: ignore[arg-type]
        services=Services(replies=cache, embedding=embedding),
    )  # fmt: skip


async def test_another_wording_is_answered_by_the_earlier_reply_and_its_embedding_is_metered(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    scripted_server.script({"small": [{"text": "Paris"}]})
    it = chain(cache, rung(scripted_server, "small"))
    await it.call("what is the capital?", reuse=ALIKE)
    spent = it.spend.nano_usd
    again = await it.call("which is the capital!", reuse=ALIKE)
    assert (again.text, again.reused, again.spend.nano_usd, again.spend.tokens) == ("Paris", True, 70, 7)
    assert it.spend.nano_usd - spent == 70
    assert [(a.rung, a.outcome) for a in again.attempts] == [("embedding", "evidence"), ("small", "accepted")]
    assert again.attempts[1].reason == "given again for a question like it (cosine 1.000), from 0 s ago"
    assert len(scripted_server.requests()) == 1


async def test_the_very_same_question_needs_no_embedding(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    await it.call("what is it?", reuse=ALIKE)
    again = await it.call("what is it?", reuse=ALIKE)
    assert (again.reused, again.spend.nano_usd, len(again.attempts)) == (True, 0, 1)


async def test_a_question_that_is_not_alike_enough_is_asked(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    await it.call("what is it?", reuse=ALIKE)
    # 20 degrees are a cosine of 0.94, 30 of 0.87.
    assert not (await it.call("what is it" + "!" * 30, reuse=ALIKE)).reused
    assert (await it.call("so what is it" + "!" * 10, reuse=ALIKE)).reused
    assert not (await it.call("and what is it" + "!" * 20, reuse=Reuse("1h", similarity=0.995))).reused


async def test_without_opting_in_to_other_wordings_there_is_no_embedding(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    await it.call("what is it?", reuse=Reuse("1h"))
    reply = await it.call("which is it?", reuse=Reuse("1h"))
    assert (reply.reused, len(reply.attempts)) == (False, 1)


async def test_all_but_the_last_message_must_be_the_same(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    def asked(system: str, question: str, **more: float) -> Request:
        return Request((Message("system", system), Message("user", question)), **more)  # type: ignore[arg-type]

    small, large = rung(scripted_server, "small"), rung(scripted_server, "large")
    await chain(cache, small).call(asked("Be brief.", "what is it?"), reuse=ALIKE)
    for it, request in (
        (chain(cache, small), asked("Be long.", "which is it?")),
        (chain(cache, small), asked("Be brief.", "which is it?", temperature=0.5)),
        (chain(cache, small, tenant="other"), asked("Be brief.", "which is it?")),
        (chain(cache, large), asked("Be brief.", "which is it?")),
    ):
        assert not (await it.call(request, reuse=ALIKE)).reused
    assert (await chain(cache, small).call(asked("Be brief.", "so what is it?"), reuse=ALIKE)).reused


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("add 2 and 3", "add 2 and 4"),
        ("add 2 and 3", "add 3 and 2"),
        ("who is 'Ada'?", "who is 'Bob'?"),
        ("how old is Ada?", "how old is Bob?"),
        ("is it safe?", "is it not safe?"),
        ("it rose by two degrees", "it rose by three degrees"),
        ("more than ten", "less than ten"),
        ("is -5 cold?", "is 5 cold?"),
        ("is 1.5 much?", "is 15 much?"),
    ],
)
async def test_a_question_with_another_number_or_name_is_never_a_hit(
    scripted_server: ScriptedServer, cache: ReplyCache, one: str, other: str
) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    await it.call(one, reuse=ALIKE)
    assert not (await it.call(other, reuse=ALIKE)).reused


words = st.text(alphabet="abcdefghij ", max_size=30)
numbers = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.decimals(-(10**6), 10**6, places=3, allow_nan=False, allow_infinity=False).map(str),
    st.from_regex(r"[0-9]{1,3}(,[0-9]{3}){1,3}|[0-9]{1,2}:[0-9]{2}|[0-9]{1,3}%", fullmatch=True),
)
names = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters="\"'“”«»„`’"), min_size=1, max_size=12
)


@given(words, words, numbers, numbers, st.sampled_from([" ", "  ", "\n", ""]))
def test_two_questions_that_differ_in_a_number_are_told_apart(
    before: str, after: str, one: str, other: str, gap: str
) -> None:
    assume(one != other)
    assert guard(f"{before} {one}{gap} {after}") != guard(f"{before} {other}{gap} {after}")


@given(words, words, names, names, st.sampled_from(['""', "''", "“”", "«»", "``"]))
def test_two_questions_that_differ_in_a_quoted_name_are_told_apart(
    before: str, after: str, one: str, other: str, marks: str
) -> None:
    assume(unicodedata.normalize("NFC", one) != unicodedata.normalize("NFC", other))
    told = [guard(f"{before} {marks[0]}{name}{marks[1]} {after}") for name in (one, other)]
    assert told[0] != told[1]


@given(st.text(max_size=300))
def test_the_guard_never_fails_and_is_the_same_every_time(text: str) -> None:
    assert guard(text) == guard(text)


async def test_an_embedder_that_is_down_costs_no_call(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    def down(_: str) -> Answer:
        raise BackendUnavailable("no answer")

    it = chain(cache, rung(scripted_server, "small"), embedding=CodeRung("embedding", down, CpuProfile()))
    assert not (await it.call("what is it?", reuse=ALIKE)).reused
    assert (await it.call("what is it?", reuse=ALIKE)).reused


async def test_long_questions_are_matched_to_the_letter_alone(
    scripted_server: ScriptedServer, cache: ReplyCache
) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    long = "x" * LONGEST
    await it.call(long + "a", reuse=ALIKE)
    assert not (await it.call(long + "b", reuse=ALIKE)).reused


async def test_what_users_wrote_is_not_in_the_file(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    it = chain(cache, rung(scripted_server, "small"))
    await it.call("where does 'Violet Jessop' live since 1934?", reuse=ALIKE)
    await cache.aclose()
    kept = b"".join(path.read_bytes() for path in cache.file.path.parent.glob("replies.db*"))
    assert b"hello" in kept
    assert not any(word in kept for word in (b"Violet", b"Jessop", b"1934"))


async def test_other_wordings_need_an_embedder(scripted_server: ScriptedServer, cache: ReplyCache) -> None:
    it = Chain(Meter("c"), Cascade("t", (rung(scripted_server, "small"),)), MemoryLedger(), services=Services(cache))
    with pytest.raises(UsageError, match=r"\[research.embedder\]"):
        await it.call("what is it?", reuse=ALIKE)


@pytest.fixture(scope="module")
def embeddings() -> Iterator[str]:
    process = ServerProcess("tests.servers.embeddings")
    yield process.address
    process.stop()


async def test_a_flow_embeds_with_the_configured_embedder(
    scripted_server: ScriptedServer, embeddings: str, here: Path
) -> None:
    small = {"backend": "openai", "base_url": scripted_server.url, "price": {"input": 1, "output": 1}}
    embedder = {"kind": "openai", "model": "words", "base_url": f"{embeddings}/v1", "price": 10}
    settings = Settings.model_validate({"models": {"small": small}, "research": {"embedder": embedder}})
    async with Flow(settings) as flow, flow.chain("ask") as it:
        await it.call("the tide in the bay rises high", reuse=ALIKE)
        again = await it.call("in the bay the tide rises high", reuse=ALIKE)
        other = await it.call("a sponge cake is made of eggs and flour", reuse=ALIKE)
    assert (again.reused, other.reused) == (True, False)
    assert again.spend.nano_usd > 0
    assert again.spend.usage.input > 0
