from __future__ import annotations

from dataclasses import replace

from agentflow.errors import BackendTimeout
from agentflow.telemetry import semconv as names
from agentflow.telemetry import tracing
from tests.telemetry.conftest import Recorded
from tests.telemetry.test_tracing import ASK, REMOTE, completion, facts

MODEL = {names.OPERATION_NAME: "chat", names.PROVIDER_NAME: "openai", names.REQUEST_MODEL: "gpt-x"}
REPLY = {**MODEL, names.RESPONSE_MODEL: "gpt-x-2026"}


def test_a_reply_is_measured_in_every_currency(recorded: Recorded) -> None:
    with tracing.job_span("research", "j1"), tracing.chat_span(REMOTE, ASK, number=1) as span:
        span.finish(facts(), completion())
    points = recorded.points()
    (duration,) = points[names.METRIC_DURATION]
    assert (duration.sum, dict(duration.attributes)) == (0.5, REPLY)
    assert list(duration.explicit_bounds)[:3] == [0.01, 0.02, 0.04]
    assert points[names.METRIC_FIRST_CHUNK][0].sum == 0.1
    tokens = {p.attributes[names.TOKEN_TYPE]: p.sum for p in points[names.METRIC_TOKENS]}
    assert tokens == {"input": 100, "output": 20}
    assert points[names.METRIC_COST][0].sum == 0.0025
    (energy,) = points[names.METRIC_ENERGY]
    assert (energy.value, dict(energy.attributes)) == (3.0, {**REPLY, names.ENERGY_SOURCE: "modelled"})


def test_prompt_tokens_are_counted_by_whether_the_provider_had_them_cached(recorded: Recorded) -> None:
    reply = completion()
    reply = replace(reply, usage=replace(reply.usage, input=100, cached_input=60))
    with tracing.chat_span(REMOTE, ASK, number=1) as span:
        span.finish(facts(), reply)
    points = {p.attributes[names.CACHE_HIT]: p.value for p in recorded.points()[names.METRIC_PROMPT_CACHE]}
    assert points == {True: 60, False: 40}


def test_calls_that_look_for_an_earlier_reply_are_counted(recorded: Recorded) -> None:
    for hit in (True, True, False):
        tracing.reuse_looked_up("default", hit=hit)
    points = {p.attributes[names.CACHE_HIT]: p.value for p in recorded.points()[names.METRIC_REUSE]}
    assert points == {True: 2, False: 1}


def test_a_failure_is_measured_under_its_type(recorded: Recorded) -> None:
    with tracing.chat_span(REMOTE, ASK, number=1) as span:
        span.fail(BackendTimeout("too slow"), facts("failed", "too slow", seconds=2.0))
    points = recorded.points()
    (duration,) = points[names.METRIC_DURATION]
    assert (duration.sum, dict(duration.attributes)) == (2.0, {**MODEL, names.ERROR_TYPE: "BackendTimeout"})
    assert names.METRIC_TOKENS not in points


def test_tokens_that_nobody_counted_are_not_reported(recorded: Recorded) -> None:
    with tracing.chat_span(REMOTE, ASK, number=1) as span:
        span.finish(facts(), completion(source="estimate"))
    assert names.METRIC_TOKENS not in recorded.points()


def test_a_replayed_attempt_is_not_measured_again(recorded: Recorded) -> None:
    with tracing.chat_span(REMOTE, ASK, number=1) as span:
        span.finish(facts(replayed=True), completion())
    assert recorded.points() == {}
    assert recorded.attributes("chat gpt-x")[names.ATTEMPT_REPLAYED] is True


def test_a_code_rung_counts_its_joules_alone(recorded: Recorded) -> None:
    with tracing.code_span("code", number=1) as span:
        span.finish(facts(nano_usd=0))
    points = recorded.points()
    assert set(points) == {names.METRIC_ENERGY}
    assert points[names.METRIC_ENERGY][0].attributes[names.RUNG_KIND] == "code"
