"""Spans after the OpenTelemetry GenAI conventions: job, agent, call, attempt, retrieval.

Without an SDK a span costs microseconds and goes nowhere. Token usage stands on attempt spans only, so that a
viewer which sums spans does not count twice. What was asked and answered is recorded only when
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says so. Only this folder imports OpenTelemetry; ``semconv`` holds
the names, ``metrics`` the instruments, ``export`` sends both out.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import (
    INVALID_SPAN,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
)

from agentflow.messages import Completion, Message, Request
from agentflow.telemetry import semconv as names
from agentflow.telemetry.metrics import instruments, measured

_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
# Why an attempt was not enough may quote a reply at length; a span needs the gist.
_MOST_REASON = 300


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


@dataclass(slots=True)
class _Call:
    """What one attempt of a call leaves for the next: why it was not enough."""

    escalation: str = ""


_job: ContextVar[str | None] = ContextVar("agentflow_job", default=None)
_call: ContextVar[_Call | None] = ContextVar("agentflow_call", default=None)


class AttemptSpan:
    """The span of one attempt, and its metrics; ``finish`` or ``fail`` says how it ended."""

    def __init__(self, span: Span, labels: Mapping[str, Any]) -> None:
        self._span = span
        self._labels = labels

    def held(self, tokens: int, usd: float, joules: float) -> None:
        """What was held for the attempt before it left."""
        if not self._span.is_recording():
            return
        figures = {"tokens": tokens, "usd": usd, "joules": joules}
        self._span.set_attributes({names.BUDGET_HELD + currency: amount for currency, amount in figures.items()})

    def finish(self, facts: AttemptFacts, completion: Completion | None = None) -> None:
        """The attempt gave a reply, good or not. A model's completion brings tokens and times along."""
        self._explain(facts)
        if self._span.is_recording():
            self._describe(facts)
            self._judge(facts)
            if completion is not None:
                self._span.set_attributes(_reply_attributes(completion))
            self._span.set_status(Status(StatusCode.OK))
        if not facts.replayed:
            self._measure(facts, self._labels, completion)

    def fail(self, error: BaseException, facts: AttemptFacts) -> None:
        """The backend gave no reply. What the attempt is charged all the same is recorded."""
        self._explain(facts)
        self._describe(facts)
        kind = type(error).__name__
        self._span.set_attribute(names.ERROR_TYPE, kind)
        self._span.set_status(Status(StatusCode.ERROR, _short(str(error))))
        self._measure(facts, {**self._labels, names.ERROR_TYPE: kind}, None)

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
                names.ENERGY_SOURCE: _energy_source(facts),
            }
        )

    @staticmethod
    def _explain(facts: AttemptFacts) -> None:
        """Keep for the call's next attempt why this one was not enough."""
        call = _call.get()
        if call is not None:
            call.escalation = "" if facts.outcome == "accepted" else _short(facts.reason or facts.outcome)

    def _judge(self, facts: AttemptFacts) -> None:
        """The checks' verdict, as the conventions' evaluation event."""
        verdict: dict[str, Any] = {names.EVALUATION_NAME: "checks", names.EVALUATION_LABEL: facts.outcome}
        if facts.confidence is not None:
            verdict[names.EVALUATION_VALUE] = facts.confidence
        if facts.reason:
            verdict[names.EVALUATION_EXPLANATION] = _short(facts.reason)
        self._span.add_event(names.EVALUATION_EVENT, verdict)

    def _measure(self, facts: AttemptFacts, labels: Mapping[str, Any], completion: Completion | None) -> None:
        if not measured():
            return
        meter = instruments()
        if names.OPERATION_NAME in labels:
            if completion is not None:
                labels = {**labels, names.RESPONSE_MODEL: completion.model}
                _measure_reply(completion, labels)
            meter.duration.record(facts.seconds, labels)
        if facts.nano_usd:
            meter.cost.record(facts.nano_usd / 1e9, labels)
        meter.energy.add(facts.joules[0], {**labels, names.ENERGY_SOURCE: _energy_source(facts)})


class WorkSpan:
    """The span of a job, an agent at work, a call or a search."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def recording(self) -> bool:
        """Whether what it is told goes anywhere."""
        return self._span.is_recording()

    def served(self, rung: str, refusal: Exception | None) -> None:
        """Which rung's reply a call returned, and the budget's refusal of another, if there was one."""
        self._span.set_attribute(names.RUNG_NAME, rung)
        if refusal is not None:
            self._span.add_event(names.BUDGET_REFUSED, {"message": _short(str(refusal))})

    def left(self, figures: Mapping[str, float]) -> None:
        """What budgets have left after it, by currency, in dollars, joules, grams, tokens, calls and seconds."""
        self._span.set_attributes({names.BUDGET_LEFT + currency: amount for currency, amount in figures.items()})

    def ended(self, state: str) -> None:
        """How a job ended."""
        self._span.set_attribute(names.JOB_STATE, state)


@contextmanager
def job_span(kind: str, job: str) -> Generator[WorkSpan]:
    """The root span of a job; every span below it carries the job's id."""
    token = _job.set(job)
    try:
        attributes = {names.OPERATION_NAME: "invoke_workflow", names.WORKFLOW_NAME: kind}
        with _span(f"invoke_workflow {kind}", SpanKind.INTERNAL, attributes) as span:
            yield WorkSpan(span)
    finally:
        _job.reset(token)


@contextmanager
def agent_span(agent: str, job: str) -> Generator[WorkSpan]:
    """The span of a sub-agent at work on its task."""
    attributes = {names.OPERATION_NAME: "invoke_agent", names.AGENT_NAME: agent, names.CONVERSATION_ID: job}
    with _span(f"invoke_agent {agent}", SpanKind.INTERNAL, attributes) as span:
        yield WorkSpan(span)


@contextmanager
def plan_span(agent: str) -> Generator[WorkSpan]:
    """The span of a sub-agent that writes a plan, below its own; the call that writes it stands below this one."""
    attributes = {names.OPERATION_NAME: "plan", names.AGENT_NAME: agent}
    with _span(f"plan {agent}", SpanKind.INTERNAL, attributes) as span:
        yield WorkSpan(span)


def call_span(name: str, path: str) -> AbstractContextManager[WorkSpan]:
    """The span of one call, over all its attempts."""
    return _call_span(name, path) if _recorded() else _UNSEEN


@contextmanager
def _call_span(name: str, path: str) -> Generator[WorkSpan]:
    token = _call.set(_Call())
    try:
        with _span(f"call {name}", SpanKind.INTERNAL, {names.CALL_PATH: f"{path}/{name}"}) as span:
            yield WorkSpan(span)
    finally:
        _call.reset(token)


@contextmanager
def retrieval_span(source: str, top_k: int) -> Generator[WorkSpan]:
    """The span of one search. ``source`` names what is searched; the query is content, and is not recorded."""
    attributes = {names.OPERATION_NAME: "retrieval", names.DATA_SOURCE_ID: source, names.REQUEST_TOP_K: top_k}
    with _span(f"retrieval {source}", SpanKind.CLIENT, attributes) as span:
        yield WorkSpan(span)


@contextmanager
def code_span(rung: str, *, number: int) -> Generator[AttemptSpan]:
    """The span of an attempt on a code rung."""
    labels = {names.RUNG_NAME: rung, names.RUNG_KIND: "code"}
    attributes = {**labels, **_place(number)}
    with _span(f"code {rung}", SpanKind.INTERNAL, attributes, finished=False) as span:
        yield AttemptSpan(span, labels)


def chat_span(facts: ModelFacts, request: Request, *, number: int) -> AbstractContextManager[AttemptSpan]:
    """The span of an attempt on a model rung."""
    labels = {names.OPERATION_NAME: "chat", names.PROVIDER_NAME: facts.provider, names.REQUEST_MODEL: facts.model}
    if not _recorded():
        return nullcontext(AttemptSpan(INVALID_SPAN, labels))
    return _chat_span(facts, request, number, labels)


@contextmanager
def _chat_span(facts: ModelFacts, request: Request, number: int, labels: Mapping[str, str]) -> Generator[AttemptSpan]:
    rung = {names.RUNG_NAME: facts.rung, names.RUNG_KIND: "model"}
    attributes = {**labels, **rung, **_place(number), **_request_attributes(request)}
    kind = SpanKind.INTERNAL if facts.in_process else SpanKind.CLIENT
    with _span(f"chat {facts.model}", kind, attributes, finished=False) as span:
        yield AttemptSpan(span, labels)


def reuse_looked_up(cascade: str, *, hit: bool) -> None:
    """A call that may be given an earlier reply has looked for one."""
    instruments().reuse.add(1, {names.CASCADE_NAME: cascade, names.CACHE_HIT: hit})
    trace.get_current_span().set_attribute(names.CACHE_HIT, hit)


@contextmanager
def _span(name: str, kind: SpanKind, attributes: Mapping[str, Any], *, finished: bool = True) -> Generator[Span]:
    """A current span whose status is always said: viewers take an unset one for success.

    With ``finished`` false its user sets OK; an exception, a cancellation included, is an error either way.
    """
    if not _recorded():
        yield INVALID_SPAN
        return
    job = _job.get()
    if job is not None:
        attributes = {names.CONVERSATION_ID: job, **attributes}
    with _tracer(trace.get_tracer_provider()).start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute(names.ERROR_TYPE, type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, _short(str(error))))
            raise
        if finished:
            span.set_status(Status(StatusCode.OK))


@functools.lru_cache(maxsize=2)
def _tracer(provider: TracerProvider) -> Tracer:
    """The provider's tracer, kept: the SDK makes a new one each time it is asked, which costs more than a span."""
    return provider.get_tracer(names.SCOPE)


_UNSEEN = nullcontext(WorkSpan(INVALID_SPAN))


def _recorded() -> bool:
    """Whether spans go anywhere. Without an SDK, what they would say need not be gathered; it may come any time."""
    return not isinstance(trace.get_tracer_provider(), (ProxyTracerProvider, NoOpTracerProvider))


def _place(number: int) -> dict[str, Any]:
    """Where an attempt stands in its call, and why the one before it was not enough."""
    call = _call.get()
    place: dict[str, Any] = {names.ATTEMPT_NUMBER: number}
    if call is not None and call.escalation:
        place[names.ESCALATION_REASON] = call.escalation
    return place


def _request_attributes(request: Request) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        names.REQUEST_TEMPERATURE: request.temperature,
        names.OUTPUT_TYPE: "json" if request.schema else "text",
    }
    if request.max_output_tokens is not None:
        attributes[names.REQUEST_MAX_TOKENS] = request.max_output_tokens
    sampling = request.sampling
    for name, value in (
        (names.REQUEST_TOP_P, sampling.top_p),
        (names.REQUEST_FREQUENCY_PENALTY, sampling.frequency_penalty),
        (names.REQUEST_PRESENCE_PENALTY, sampling.presence_penalty),
    ):
        if value is not None:
            attributes[name] = value
    if request.seed is not None:
        attributes[names.REQUEST_SEED] = request.seed
    if request.stop:
        attributes[names.REQUEST_STOP_SEQUENCES] = request.stop
    if _captures_content():
        attributes[names.INPUT_MESSAGES] = json.dumps([_message(m) for m in request.messages])
    return attributes


def _reply_attributes(completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    attributes: dict[str, Any] = {
        names.RESPONSE_MODEL: completion.model,
        names.RESPONSE_FINISH_REASONS: [_finish_reason(completion)],
        names.USAGE_INPUT_TOKENS: usage.input,
        names.USAGE_OUTPUT_TOKENS: usage.output,
        names.USAGE_CACHE_READ: usage.cached_input,
        names.USAGE_CACHE_CREATION: usage.cache_write,
        names.USAGE_CACHE_WRITE: usage.cache_write,
        names.USAGE_REASONING: usage.reasoning,
    }
    if completion.ignored:
        attributes[names.ATTEMPT_IGNORED] = completion.ignored
    if completion.id:
        attributes[names.RESPONSE_ID] = completion.id
    if completion.timings.first_token_s is not None:
        attributes[names.RESPONSE_FIRST_CHUNK] = completion.timings.first_token_s
    if _captures_content():
        reply = _message(Message("assistant", completion.text, completion.tool_calls))
        attributes[names.OUTPUT_MESSAGES] = json.dumps([{**reply, "finish_reason": _finish_reason(completion)}])
    return attributes


def _measure_reply(completion: Completion, labels: Mapping[str, Any]) -> None:
    meter, usage = instruments(), completion.usage
    if completion.timings.first_token_s is not None:
        meter.first_chunk.record(completion.timings.first_token_s, labels)
    # The convention: no count, no record. An estimate is no count.
    if usage.source != "estimate":
        meter.tokens.record(usage.input, {**labels, names.TOKEN_TYPE: "input"})
        meter.tokens.record(usage.output, {**labels, names.TOKEN_TYPE: "output"})
        meter.prompt_cache.add(usage.cached_input, {**labels, names.CACHE_HIT: True})
        meter.prompt_cache.add(usage.input - usage.cached_input, {**labels, names.CACHE_HIT: False})


def _message(message: Message) -> dict[str, Any]:
    """A turn in the conventions' form: a role and parts."""
    if message.role == "tool":
        answer = {"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}
        return {"role": "tool", "parts": [answer]}
    parts: list[dict[str, Any]] = [{"type": "text", "content": message.content}] if message.content else []
    calls = [{"type": "tool_call", "id": c.id, "name": c.name, "arguments": c.arguments} for c in message.tool_calls]
    return {"role": message.role, "parts": parts + calls}


def _finish_reason(completion: Completion) -> str:
    """The conventions say tool_call where servers say tool_calls."""
    return "tool_call" if completion.finish_reason == "tool_calls" else completion.finish_reason


def _energy_source(facts: AttemptFacts) -> str:
    """What a server itself reports is the conventions' ``provider``."""
    return "provider" if facts.energy_source == "reported" else facts.energy_source


def _captures_content() -> bool:
    return os.environ.get(_CAPTURE, "").upper() in {"SPAN_ONLY", "SPAN_AND_EVENT", "TRUE"}


def _short(text: str) -> str:
    return text if len(text) <= _MOST_REASON else f"{text[: _MOST_REASON - 1]}…"
