from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow.telemetry import semconv as names
from agentflow.telemetry import tracing
from agentflow.telemetry.compat import CompatibleExporter
from tests.telemetry.conftest import Recorded
from tests.telemetry.test_tracing import ASK, REMOTE, completion, facts


def exported(spans: tuple[ReadableSpan, ...], *compat: str) -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    CompatibleExporter(exporter, compat).export(spans)
    return {span.name: span for span in exporter.get_finished_spans()}


def traced(recorded: Recorded) -> tuple[ReadableSpan, ...]:
    with tracing.job_span("research", "j1"), tracing.agent_span("planner", "j1"), tracing.plan_span("planner"):
        with tracing.retrieval_span("sources", 8), tracing.call_span("plan", "j1/planner"):
            with tracing.code_span("code", number=1) as code:
                code.finish(facts("kept", "confidence 0.30 is below 0.70", nano_usd=0))
            with tracing.chat_span(REMOTE, ASK, number=2) as chat:
                chat.finish(facts(), completion())
    return recorded.finished()


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def test_openinference_viewers_are_told_the_kind_of_every_span(recorded: Recorded) -> None:
    spans = exported(traced(recorded), "openinference")
    assert {name: attributes(span)[names.OPENINFERENCE_KIND] for name, span in spans.items()} == {
        "invoke_workflow research": "CHAIN",
        "invoke_agent planner": "AGENT",
        "plan planner": "CHAIN",
        "retrieval sources": "RETRIEVER",
        "call plan": "CHAIN",
        "code code": "CHAIN",
        "chat gpt-x": "LLM",
    }
    assert not [span for span in spans.values() if names.MLFLOW_COST in attributes(span)]


def test_mlflow_is_told_the_dollars_of_model_calls_alone_so_that_none_counts_twice(recorded: Recorded) -> None:
    spans = exported(traced(recorded), "mlflow")
    costs = {
        n: json.loads(attributes(s)[names.MLFLOW_COST]) for n, s in spans.items() if names.MLFLOW_COST in attributes(s)
    }
    assert costs == {"chat gpt-x": {"total_cost": 0.0025}}
    assert not [span for span in spans.values() if names.OPENINFERENCE_KIND in attributes(span)]


def test_a_span_keeps_everything_else(recorded: Recorded) -> None:
    before = {span.name: span for span in traced(recorded)}
    for name, span in exported(tuple(before.values()), "openinference", "mlflow").items():
        was = json.loads(before[name].to_json())
        now = json.loads(span.to_json())
        now["attributes"] = {k: v for k, v in now["attributes"].items() if k in was["attributes"]}
        assert now == was
        assert span.instrumentation_scope == before[name].instrumentation_scope


def test_with_no_viewer_named_and_for_spans_of_others_nothing_is_added(recorded: Recorded) -> None:
    plain = traced(recorded)
    assert {n: attributes(s) for n, s in exported(plain).items()} == {s.name: attributes(s) for s in plain}
    own, exporter = TracerProvider(), InMemorySpanExporter()
    own.add_span_processor(SimpleSpanProcessor(CompatibleExporter(exporter, ("openinference", "mlflow"))))
    with trace.use_span(own.get_tracer("another library").start_span("theirs"), end_on_exit=True):
        pass
    (theirs,) = exporter.get_finished_spans()
    assert attributes(theirs) == {}
