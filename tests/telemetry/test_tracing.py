from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from agentflow.errors import BackendTimeout, BudgetExceeded, Refusal
from agentflow.messages import Completion, Message, Request, Sampling, Timings, TokenUsage, ToolCall
from agentflow.telemetry import semconv as names
from agentflow.telemetry import tracing
from agentflow.telemetry.tracing import AttemptFacts, ModelFacts
from tests.telemetry.conftest import Recorded

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
REMOTE = ModelFacts("openai", "gpt-x", in_process=False, rung="large")
LOCAL = ModelFacts("llama_cpp", "tiny", in_process=True, rung="tiny")
ASK = Request(
    (Message("system", "Be terse."), Message("user", "a secret question")), max_output_tokens=50, seed=7,
    sampling=Sampling(top_p=0.5, presence_penalty=-1.0),
)  # fmt: skip


def facts(outcome: str = "accepted", reason: str = "", **more: object) -> AttemptFacts:
    values: dict[str, object] = {
        "confidence": 0.9,
        "nano_usd": 2_500_000,
        "joules": (3.0, 1.0, 9.0),
        "energy_source": "modelled",
        "seconds": 0.5,
        **more,
    }
    return AttemptFacts(outcome, reason, **values)  # type: ignore[arg-type]


def completion(**usage: object) -> Completion:
    counted: dict[str, object] = {"input": 100, "output": 20, "cached_input": 40, "source": "provider", **usage}
    timings = Timings(total_s=0.5, first_token_s=0.1)
    return Completion("a secret reply", "gpt-x-2026", TokenUsage(**counted), timings, id="r1")  # type: ignore[arg-type]


def test_a_chat_span_says_what_the_server_ignored(recorded: Recorded) -> None:
    with tracing.chat_span(REMOTE, ASK, number=1) as span:
        span.finish(facts(), replace(completion(), ignored=("logprobs", "model")))
    assert recorded.attributes("chat gpt-x")[names.ATTEMPT_IGNORED] == ("logprobs", "model")


def test_a_chat_span_carries_request_reply_tokens_dollars_and_joules(recorded: Recorded) -> None:
    with tracing.chat_span(REMOTE, ASK, number=2) as span:
        span.finish(facts(), completion())
    span_ = recorded.spans()["chat gpt-x"]
    assert span_.kind is SpanKind.CLIENT
    assert span_.status.status_code is StatusCode.OK
    said = recorded.attributes("chat gpt-x")
    expected = {
        names.OPERATION_NAME: "chat",
        names.PROVIDER_NAME: "openai",
        names.REQUEST_MODEL: "gpt-x",
        names.REQUEST_MAX_TOKENS: 50,
        names.REQUEST_SEED: 7,
        names.REQUEST_TOP_P: 0.5,
        names.REQUEST_PRESENCE_PENALTY: -1.0,
        names.RESPONSE_MODEL: "gpt-x-2026",
        names.RESPONSE_ID: "r1",
        names.RESPONSE_FINISH_REASONS: ("stop",),
        names.RESPONSE_FIRST_CHUNK: 0.1,
        names.USAGE_INPUT_TOKENS: 100,
        names.USAGE_OUTPUT_TOKENS: 20,
        names.USAGE_CACHE_READ: 40,
        names.COST_AMOUNT: 0.0025,
        names.COST_CURRENCY: "USD",
        names.ENERGY_AMOUNT: 3.0,
        names.ENERGY_LOW: 1.0,
        names.ENERGY_HIGH: 9.0,
        names.ENERGY_SOURCE: "modelled",
        names.ATTEMPT_NUMBER: 2,
        names.RUNG_NAME: "large",
        names.RUNG_KIND: "model",
    }
    assert {key: said.get(key) for key in expected} == expected


def test_a_model_in_this_process_is_no_client_call(recorded: Recorded) -> None:
    with tracing.chat_span(LOCAL, ASK, number=1) as span:
        span.finish(facts(), completion())
    assert recorded.spans()["chat tiny"].kind is SpanKind.INTERNAL


def test_joules_that_the_server_reported_come_from_the_provider(recorded: Recorded) -> None:
    with tracing.chat_span(REMOTE, ASK, number=1) as span:
        span.finish(facts(energy_source="reported"), completion())
    assert recorded.attributes("chat gpt-x")[names.ENERGY_SOURCE] == "provider"


def test_tokens_stand_on_chat_spans_only(recorded: Recorded) -> None:
    with tracing.job_span("research", "j1"), tracing.agent_span("planner", "j1"), tracing.call_span("plan", "j1/plan"):
        with tracing.code_span("code", number=1) as code:
            code.finish(facts("kept", "confidence 0.30 is below 0.70"))
        with tracing.chat_span(REMOTE, ASK, number=2) as chat:
            chat.finish(facts(), completion())
    counted = {
        n
        for n in recorded.spans()
        if any(k.startswith("gen_ai.usage.") and "tokens" in k for k in recorded.attributes(n))
    }
    assert counted == {"chat gpt-x"}


def test_every_span_below_a_job_carries_its_id_and_none_after_it(recorded: Recorded) -> None:
    with tracing.job_span("research", "j1"), tracing.call_span("plan", "j1/plan"):
        with tracing.code_span("code", number=1) as code:
            code.finish(facts())
    with tracing.call_span("later", "chain"):
        pass
    ids = {name: recorded.attributes(name).get(names.CONVERSATION_ID) for name in recorded.spans()}
    assert ids == {"invoke_workflow research": "j1", "call plan": "j1", "code code": "j1", "call later": None}


def test_the_next_attempt_says_why_the_one_before_was_not_enough(recorded: Recorded) -> None:
    with tracing.call_span("plan", "chain"):
        with tracing.code_span("code", number=1) as first:
            first.finish(facts("kept", "confidence 0.30 is below 0.70", confidence=0.3))
        with tracing.chat_span(LOCAL, ASK, number=2) as second:
            second.fail(BackendTimeout("no whole reply within 2 s"), facts("failed", "no whole reply within 2 s"))
        with tracing.chat_span(REMOTE, ASK, number=3) as third:
            third.finish(facts(), completion())
    with tracing.call_span("next", "chain"), tracing.code_span("fresh", number=1) as fresh:
        fresh.finish(facts())
    reasons = {name: recorded.attributes(name).get(names.ESCALATION_REASON) for name in recorded.spans()}
    assert reasons["code code"] is None
    assert reasons["chat tiny"] == "confidence 0.30 is below 0.70"
    assert reasons["chat gpt-x"] == "no whole reply within 2 s"
    assert reasons["code fresh"] is None


def test_the_checks_verdict_is_an_evaluation_event(recorded: Recorded) -> None:
    with tracing.code_span("code", number=1) as span:
        span.finish(facts("rejected", "claim 2 quotes nothing", confidence=0.2))
    (event,) = recorded.spans()["code code"].events
    assert event.name == names.EVALUATION_EVENT
    assert dict(event.attributes or {}) == {
        names.EVALUATION_NAME: "checks",
        names.EVALUATION_LABEL: "rejected",
        names.EVALUATION_VALUE: 0.2,
        names.EVALUATION_EXPLANATION: "claim 2 quotes nothing",
    }


def test_a_failed_attempt_is_an_error_with_its_type(recorded: Recorded) -> None:
    with tracing.chat_span(REMOTE, ASK, number=1) as span:
        span.fail(BackendTimeout("too slow"), facts("failed", "too slow"))
    status = recorded.spans()["chat gpt-x"].status
    assert (status.status_code, status.description) == (StatusCode.ERROR, "too slow")
    assert recorded.attributes("chat gpt-x")[names.ERROR_TYPE] == "BackendTimeout"
    assert names.USAGE_INPUT_TOKENS not in recorded.attributes("chat gpt-x")


def test_the_root_says_ok_when_the_job_ended_and_how(recorded: Recorded) -> None:
    with tracing.job_span("research", "j1") as span:
        span.ended("done")
    root = recorded.spans()["invoke_workflow research"]
    assert root.parent is None
    assert root.status.status_code is StatusCode.OK
    assert recorded.attributes(root.name)[names.JOB_STATE] == "done"


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), KeyboardInterrupt()])
def test_whatever_ends_a_job_its_root_says_error(recorded: Recorded, error: BaseException) -> None:
    with pytest.raises(type(error)), tracing.job_span("research", "j1"):
        raise error
    root = recorded.spans()["invoke_workflow research"]
    assert root.status.status_code is StatusCode.ERROR
    assert recorded.attributes(root.name)[names.ERROR_TYPE] == type(error).__name__
    assert root.events == ()


def test_a_call_names_the_rung_that_served_and_the_refusal_of_another(recorded: Recorded) -> None:
    refused = BudgetExceeded(Refusal("joules", "chain", "10 J", "9 J", "0 J", "5 J"))
    with tracing.call_span("plan", "job/plan") as span:
        span.served("code", refused)
    assert recorded.attributes("call plan")[names.RUNG_NAME] == "code"
    assert recorded.attributes("call plan")[names.CALL_PATH] == "job/plan/plan"
    (event,) = recorded.spans()["call plan"].events
    assert event.name == names.BUDGET_REFUSED


def test_a_search_names_what_it_searched_and_not_what_for(recorded: Recorded) -> None:
    with tracing.retrieval_span("corpus", 8):
        pass
    said = recorded.attributes("retrieval corpus")
    assert said == {names.OPERATION_NAME: "retrieval", names.DATA_SOURCE_ID: "corpus", names.REQUEST_TOP_K: 8}


def test_a_plan_stands_between_the_agent_and_the_call_that_writes_it(recorded: Recorded) -> None:
    with tracing.agent_span("planner", "j1"), tracing.plan_span("planner"), tracing.call_span("plan", "j1/planner"):
        pass
    spans = recorded.spans()
    assert spans["plan planner"].parent == spans["invoke_agent planner"].context
    assert spans["call plan"].parent == spans["plan planner"].context
    assert recorded.attributes("plan planner") == {names.OPERATION_NAME: "plan", names.AGENT_NAME: "planner"}


def test_content_is_not_recorded_unless_asked_for(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("", "NO_CONTENT", "EVENT_ONLY", "nonsense"):
        monkeypatch.setenv(CAPTURE, mode)
        with tracing.chat_span(REMOTE, ASK, number=1) as span:
            span.finish(facts(), completion())
        assert "secret" not in recorded.spans()["chat gpt-x"].to_json()


def test_content_is_recorded_as_role_and_parts_when_asked_for(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CAPTURE, "span_only")
    turns = (Message("assistant", "", (ToolCall("t1", "look", "{}"),)), Message("tool", "found", tool_call_id="t1"))
    with tracing.chat_span(REMOTE, Request((*ASK.messages, *turns)), number=1) as span:
        span.finish(facts(), completion())
    said = recorded.attributes("chat gpt-x")
    asked = json.loads(str(said[names.INPUT_MESSAGES]))
    assert asked[1] == {"role": "user", "parts": [{"type": "text", "content": "a secret question"}]}
    assert asked[2]["parts"] == [{"type": "tool_call", "id": "t1", "name": "look", "arguments": "{}"}]
    assert asked[3]["parts"] == [{"type": "tool_call_response", "id": "t1", "response": "found"}]
    (reply,) = json.loads(str(said[names.OUTPUT_MESSAGES]))
    assert reply["finish_reason"] == "stop"
    assert reply["parts"] == [{"type": "text", "content": "a secret reply"}]


def test_a_long_reason_is_cut_to_its_gist(recorded: Recorded) -> None:
    with tracing.code_span("code", number=1) as span:
        span.finish(facts("rejected", "x" * 5_000))
    (event,) = recorded.spans()["code code"].events
    assert len(str((event.attributes or {})[names.EVALUATION_EXPLANATION])) == 300


async def test_parallel_calls_do_not_share_their_escalations(recorded: Recorded) -> None:
    both = asyncio.Barrier(2)

    async def call(name: str, outcome: str) -> None:
        with tracing.call_span(name, "chain"):
            with tracing.code_span(name, number=1) as first:
                first.finish(facts(outcome, f"{name} was unsure" if outcome == "kept" else ""))
            await both.wait()
            with tracing.code_span(f"{name} again", number=2) as second:
                second.finish(facts())

    async with asyncio.TaskGroup() as group:
        group.create_task(call("one", "kept"))
        group.create_task(call("two", "accepted"))
    assert recorded.attributes("code one again")[names.ESCALATION_REASON] == "one was unsure"
    assert names.ESCALATION_REASON not in recorded.attributes("code two again")
    parents = recorded.spans()
    assert parents["code one again"].parent == parents["call one"].context
