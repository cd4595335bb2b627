from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.backends import server_metrics
from agentflow.backends.server_metrics import ServerCounts, ServerMetrics, load_of_reply, parse_metrics
from agentflow.energy import CallFacts
from agentflow.errors import BackendTimeout, BackendUnavailable, BadReply, RequestRejected
from agentflow.messages import TokenUsage
from tests.servers.metrics_pages import FIRST, LLAMACPP, SECOND, VLLM
from tests.servers.openai_server import ServerProcess


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process = ServerProcess("tests.servers.metrics_pages")
    yield process.address
    process.stop()


@pytest.fixture
def llama() -> Iterator[str]:
    pytest.importorskip("xllamacpp")
    process = ServerProcess("tests.servers.llama_metrics")
    yield process.address
    process.stop()


async def look(url: str, **more: Any) -> ServerCounts:
    metrics = ServerMetrics(url, **more)
    try:
        return await metrics.read()
    finally:
        await metrics.aclose()


async def test_two_looks_at_vllm_are_its_load(address: str):
    metrics = ServerMetrics(f"{address}/vllm/v1")
    before = await metrics.read()
    after = await metrics.read()
    await metrics.aclose()
    await metrics.aclose()
    assert (before.engine, before.running, before.waiting, before.flop) == ("vllm", 0.0, 1.0, None)
    load = after.since(before)
    # 800 tokens in 200 steps, 7.92 s over 792 gaps, 500 of 2,000 prompt tokens from the cache.
    assert (load.batch, load.itl_s, load.cached_share) == (4.0, pytest.approx(0.01), 0.25)
    assert (load.prompt_tokens, load.output_tokens, load.flop) == (2000.0, 800.0, None)
    assert load.seconds > 0


def test_prompt_tokens_mean_the_same_in_both_dialects():
    vllm, llama = parse_metrics(VLLM.format(**FIRST)), parse_metrics(LLAMACPP)
    assert (vllm.prompt_tokens, vllm.cached_tokens) == (1264.0, 896.0)
    assert (llama.prompt_tokens, llama.cached_tokens) == (12.0, 5.0)
    assert (llama.steps, llama.sequence_steps) == (6.0, 9.0)


def test_drafted_tokens_do_not_count_as_sequences():
    page = VLLM.format(**SECOND) + (
        "# TYPE vllm:spec_decode_num_accepted_tokens_total counter\n"
        'vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="tinyv"} 600.0\n'
    )
    assert parse_metrics(page).sequence_steps == 322.0


def test_of_several_models_on_a_page_one_is_counted_or_all():
    line = 'vllm:prompt_tokens_total{{engine="1",model_name="{name}"}} {count}\n'
    page = "# TYPE vllm:prompt_tokens_total counter\n" + line.format(name="a", count=3) + line.format(name="b", count=5)
    assert parse_metrics(page).prompt_tokens == 8.0
    assert parse_metrics(page, model="b").prompt_tokens == 5.0
    assert parse_metrics(page, model="c").prompt_tokens is None


def test_what_a_page_does_not_say_is_unknown_not_zero():
    counts = parse_metrics("# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 2\n")
    assert (counts.running, counts.prompt_tokens, counts.steps) == (2.0, None, None)
    load = counts.since(counts)
    assert (load.batch, load.itl_s, load.cached_share, load.output_tokens) == (None, None, None, None)


def test_a_server_that_was_restarted_has_no_load():
    first, second = parse_metrics(VLLM.format(**FIRST)), parse_metrics(VLLM.format(**SECOND))
    load = first.since(second)
    assert (load.batch, load.itl_s, load.output_tokens) == (None, None, None)


@given(st.text(max_size=300))
def test_no_page_however_odd_gives_anything_but_a_record_or_a_refusal(text: str):
    for page in (text, LLAMACPP + text):
        try:
            counts = parse_metrics(page)
        except BadReply:
            continue
        figures = [getattr(counts, name) for name in ("prompt_tokens", "steps", "running", "output_tokens")]
        assert all(figure is None or figure >= 0 for figure in figures)


def test_a_call_takes_the_servers_batch_where_it_knows_none():
    load = parse_metrics(VLLM.format(**SECOND)).since(parse_metrics(VLLM.format(**FIRST)))
    facts = CallFacts(TokenUsage(input=10, output=5))
    assert load.onto(facts).batch == 4.0
    assert load.onto(CallFacts(facts.usage, batch=7.0)).batch == 7.0
    assert parse_metrics(LLAMACPP).since(parse_metrics(LLAMACPP)).onto(facts) is facts


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("missing", RequestRejected, "--metrics"),
        ("moved", RequestRejected, "302"),
        ("keyed", RequestRejected, "401"),
        ("garbage", BadReply, "Prometheus"),
        ("html", BadReply, "no engine|Prometheus"),
        ("other", BadReply, "no engine"),
    ],
)
async def test_a_page_that_is_none_is_refused_in_words(address: str, path: str, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        await look(f"{address}/{path}")


async def test_an_endless_page_is_cut_off(address: str):
    with pytest.raises(BadReply, match="larger than"):
        await look(f"{address}/endless")


async def test_a_slow_page_is_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_metrics, "_WAIT_S", 0.05)
    with pytest.raises(BackendTimeout, match="no metrics within"):
        await look(f"{address}/slow")


async def test_a_server_that_is_not_there_is_unavailable():
    with pytest.raises(BackendUnavailable, match="gave no metrics"):
        await look("http://127.0.0.1:9/v1")


async def test_a_key_is_sent_and_never_shown(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METRICS_KEY", "the-key")
    assert (await look(f"{address}/keyed", api_key_env="METRICS_KEY")).prompt_tokens == 12.0
    monkeypatch.setenv("METRICS_KEY", "another-secret")
    with pytest.raises(RequestRejected) as refused:
        await look(f"{address}/keyed", api_key_env="METRICS_KEY")
    assert "another-secret" not in str(refused.value)


def test_timings_of_a_llamacpp_reply():
    timings = {"cache_n": 5, "prompt_n": 15, "prompt_ms": 40.0, "predicted_n": 11, "predicted_ms": 200.0}
    load = load_of_reply({"timings": timings})
    assert (load.itl_s, load.cached_share, load.seconds) == (pytest.approx(0.02), 0.25, pytest.approx(0.24))
    assert (load.prompt_tokens, load.output_tokens) == (20.0, 11.0)


def test_metrics_of_a_vllm_reply():
    load = load_of_reply({"metrics": {"mean_itl_ms": 12.5, "generation_time_ms": 500.0}})
    assert (load.itl_s, load.seconds) == (0.0125, 0.5)


@pytest.mark.parametrize(
    "body",
    [{}, {"timings": []}, {"timings": {"predicted_n": 1, "predicted_ms": 0}}, {"metrics": {"mean_itl_ms": "x"}},
     {"timings": {"cache_n": math.nan, "prompt_n": -1, "predicted_n": True, "predicted_ms": math.inf}},
     {"timings": {"predicted_n": 10**400, "predicted_ms": 5}}],
)  # fmt: skip
def test_a_reply_that_says_nothing_leaves_everything_unknown(body: dict[str, Any]):
    load = load_of_reply(body)
    assert (load.itl_s, load.cached_share, load.batch) == (None, None, None)


async def test_a_real_llamacpp_server_tells_its_load(llama: str):
    metrics = ServerMetrics(f"{llama}/v1")
    before = await metrics.read()

    async def ask(session: aiohttp.ClientSession, prompt: str) -> dict[str, Any]:
        body = {"model": "small", "messages": [{"role": "user", "content": prompt}], "max_tokens": 8, "temperature": 0}
        async with session.post(f"{llama}/v1/chat/completions", json=body) as response:
            return json.loads(await response.read())

    async with aiohttp.ClientSession() as session:
        first = await ask(session, "12+7")
        replies = [first, *await asyncio.gather(*(ask(session, "12+7") for _ in range(4)))]
    load = (await metrics.read()).since(before)
    await metrics.aclose()
    assert load.prompt_tokens == sum(reply["usage"]["prompt_tokens"] for reply in replies)
    assert load.output_tokens == sum(reply["usage"]["completion_tokens"] for reply in replies)
    assert load.batch is not None
    assert 1.0 <= load.batch <= 2.0
    assert load.itl_s is not None
    assert 0 < load.itl_s < 10
    own = load_of_reply(first)
    assert own.itl_s is not None
    assert own.prompt_tokens == first["usage"]["prompt_tokens"]
