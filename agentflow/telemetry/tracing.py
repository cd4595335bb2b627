"""Spans after the OpenTelemetry GenAI conventions: job, agent, call, attempt.

Without an SDK a span costs microseconds and goes nowhere. Token usage stands on attempt spans only, so that a
viewer which sums spans does not count twice. What was asked and answered is recorded only when
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says so. Only this folder imports OpenTelemetry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from agentflow.messages import Completion, Request
from agentflow.telemetry import semconv as names
from agentflow.telemetry.metrics import instruments


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a chat span says of the model before the call leaves."""

    provider: str
    model: str
    in_process: bool
    rung: str


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """What a span says of a finished attempt. Joules are mean, low, high."""

    outcome: str
    reason: str
    confidence: float | None
    nano_usd: int
    joules: tuple[float, float, float]
    energy_source: str
    seconds: float
    replayed: bool = False


class AttemptSpan:
    """The span of one attempt; ``finish`` and ``fail`` say how it ended."""

    def __init__(self, span: Span, metric_attributes: dict[str, Any] | None) -> None:
        self._span = span
        self._metric_attributes = metric_attributes

    def finish(self, facts: AttemptFacts, completion: Completion | None = None) -> None:
        """The attempt gave a reply, good or not."""
        self._describe(facts)
        if completion is not None:
            self._span.set_attributes(_reply_attributes(completion))
            self._measure(facts, completion)
        self._span.set_status(Status(StatusCode.OK))

    def fail(self, error: Exception, facts: AttemptFacts) -> None:
        """The backend gave no reply."""
        self._describe(facts)
        self._span.set_attribute(names.ERROR_TYPE, type(error).__name__)
        self._span.set_status(Status(StatusCode.ERROR, str(error)))

    def _describe(self, facts: AttemptFacts) -> None:
        mean, low, high = facts.joules
        self._span.set_attributes(
            {
                names.ATTEMPT_OUTCOME: facts.outcome,
                names.ATTEMPT_REPLAYED: facts.replayed,
                names.COST_AMOUNT: facts.nano_usd / 1e9,
                names.COST_CURRENCY: "USD",
                names.COST_SOURCE: "local",
                names.ENERGY_AMOUNT: mean,
                names.ENERGY_LOW: low,
                names.ENERGY_HIGH: high,
                names.ENERGY_SOURCE: facts.energy_source,
            }
        )
        if facts.outcome != "accepted":
            self._span.set_attribute(names.ESCALATION_REASON, facts.reason or facts.outcome)
        verdict: dict[str, Any] = {names.EVALUATION_NAME: "checks", names.EVALUATION_LABEL: facts.outcome}
        if facts.confidence is not None:
            verdict[names.EVALUATION_VALUE] = facts.confidence
        if facts.reason:
            verdict[names.EVALUATION_EXPLANATION] = facts.reason
        self._span.add_event(names.EVALUATION_EVENT, verdict)

    def _measure(self, facts: AttemptFacts, completion: Completion) -> None:
        if self._metric_attributes is None or facts.replayed:
            return
        labels = {**self._metric_attributes, names.RESPONSE_MODEL: completion.model}
        meter = instruments()
        meter.duration.record(facts.seconds, labels)
        meter.tokens.record(completion.usage.input, {**labels, names.TOKEN_TYPE: "input"})
        meter.tokens.record(completion.usage.output, {**labels, names.TOKEN_TYPE: "output"})
        meter.cost.record(facts.nano_usd / 1e9, labels)
        meter.energy.add(facts.joules[0], {**labels, "energy.source": facts.energy_source})


class WorkSpan:
    """The span of a job, an agent at work, or a call."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def served(self, rung: str, refusal: Exception | None) -> None:
        """Which rung's reply a call returned, and the budget's refusal of another, if there was one."""
        self._span.set_attribute(names.RUNG_NAME, rung)
        if refusal is not None:
            self._span.add_event(names.BUDGET_REFUSED, {"message": str(refusal)})

    def ended(self, state: str) -> None:
        """How a job ended."""
        self._span.set_attribute(names.JOB_STATE, state)


@contextmanager
def job_span(kind: str, job: str) -> Generator[WorkSpan]:
    """The root span of a job."""
    attributes = {names.OPERATION_NAME: "invoke_workflow", names.WORKFLOW_NAME: kind, names.CONVERSATION_ID: job}
    with _span(f"invoke_workflow {kind}", SpanKind.INTERNAL, attributes) as span:
        yield WorkSpan(span)


@contextmanager
def agent_span(agent: str, job: str) -> Generator[WorkSpan]:
    """The span of a sub-agent at work on its task."""
    attributes = {names.OPERATION_NAME: "invoke_agent", names.AGENT_NAME: agent, names.CONVERSATION_ID: job}
    with _span(f"invoke_agent {agent}", SpanKind.INTERNAL, attributes) as span:
        yield WorkSpan(span)


@contextmanager
def call_span(name: str, path: str) -> Generator[WorkSpan]:
    """The span of one call, over all its attempts."""
    with _span(f"call {name}", SpanKind.INTERNAL, {names.CALL_PATH: f"{path}/{name}"}) as span:
        yield WorkSpan(span)


@contextmanager
def code_span(rung: str, *, number: int) -> Generator[AttemptSpan]:
    """The span of an attempt on a code rung."""
    attributes = {names.RUNG_NAME: rung, names.RUNG_KIND: "code", names.ATTEMPT_NUMBER: number}
    with _span(f"code {rung}", SpanKind.INTERNAL, attributes, status=False) as span:
        yield AttemptSpan(span, None)


@contextmanager
def chat_span(facts: ModelFacts, request: Request, *, number: int) -> Generator[AttemptSpan]:
    """The span of an attempt on a model rung."""
    metric_attributes: dict[str, Any] = {
        names.OPERATION_NAME: "chat",
        names.PROVIDER_NAME: facts.provider,
        names.REQUEST_MODEL: facts.model,
    }
    attributes: dict[str, Any] = {
        **metric_attributes,
        names.REQUEST_TEMPERATURE: request.temperature,
        names.OUTPUT_TYPE: "json" if request.schema else "text",
        names.RUNG_NAME: facts.rung,
        names.RUNG_KIND: "model",
        names.ATTEMPT_NUMBER: number,
    }
    if request.max_output_tokens is not None:
        attributes[names.REQUEST_MAX_TOKENS] = request.max_output_tokens
    if request.seed is not None:
        attributes[names.REQUEST_SEED] = request.seed
    if _captures_content():
        attributes[names.INPUT_MESSAGES] = _messages_json(request)
    kind = SpanKind.INTERNAL if facts.in_process else SpanKind.CLIENT
    with _span(f"chat {facts.model}", kind, attributes, status=False) as span:
        yield AttemptSpan(span, metric_attributes)


@contextmanager
def _span(name: str, kind: SpanKind, attributes: dict[str, Any], *, status: bool = True) -> Generator[Span]:
    tracer = trace.get_tracer("agentflow")
    with tracer.start_as_current_span(name, kind=kind, attributes=attributes, record_exception=False) as span:
        yield span
        if status:
            span.set_status(Status(StatusCode.OK))


def _reply_attributes(completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    attributes: dict[str, Any] = {
        names.RESPONSE_MODEL: completion.model,
        names.RESPONSE_FINISH_REASONS: [completion.finish_reason],
        names.USAGE_INPUT_TOKENS: usage.input,
        names.USAGE_OUTPUT_TOKENS: usage.output,
        names.USAGE_CACHE_READ: usage.cached_input,
        names.USAGE_CACHE_CREATION: usage.cache_write,
    }
    if completion.id:
        attributes[names.RESPONSE_ID] = completion.id
    if _captures_content():
        part = {"type": "text", "content": completion.text}
        reply = {"role": "assistant", "parts": [part], "finish_reason": completion.finish_reason}
        attributes[names.OUTPUT_MESSAGES] = json.dumps([reply])
    return attributes


def _captures_content() -> bool:
    mode = os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "")
    return mode.upper() in {"SPAN_ONLY", "SPAN_AND_EVENT", "TRUE"}


def _messages_json(request: Request) -> str:
    return json.dumps([{"role": m.role, "parts": [{"type": "text", "content": m.content}]} for m in request.messages])
