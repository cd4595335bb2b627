"""Chain: the handle through which every call goes. Meter node, cascade, ledger key and span in one place.

May import cascade and everything below it. ``runtime`` opens chains; ``orchestration`` gives them to agents.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from pydantic import JsonValue

from agentflow.budget.admission import Admission, Strict
from agentflow.budget.ledger import Labels, Ledger
from agentflow.budget.meter import Meter
from agentflow.budget.spend import Spend
from agentflow.cascade.cache import Reuse, Reusing
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.checks import Check, output_schema
from agentflow.cascade.once import once
from agentflow.cascade.outcomes import Outcome, OutcomeFile
from agentflow.cascade.placement import Residency, deadline
from agentflow.cascade.reply import AnyReply, Attempt, Reply
from agentflow.cascade.rung import CodeRung, ModelRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.services import Services
from agentflow.cascade.stream import ReplyStream
from agentflow.cascade.trail import attempt_key
from agentflow.cascade.warmth import Warmth
from agentflow.errors import UsageError
from agentflow.messages import Delta, Message, Request, ToolChoice, ToolSpec, writable
from agentflow.telemetry import tracing

Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt as a job's events tell it: which chain, which call, which attempt."""

    chain: str
    call: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class ChainStatistics:
    """A snapshot of a chain: calls made, attempts made, what it spent."""

    calls: int
    attempts: int
    spent: Spend


class Chain:
    """The sequence of calls made for one task, under one budget.

    Every call is recorded in the ledger under the job, the chain's path and the request's content, so that
    a repeated run of the same job is answered from the ledger instead of being paid for again.

    Args:
        meter: the chain's node in the budget tree.
        cascade: the rungs that serve its calls, unless a call names others.
        ledger: where attempts are recorded.
        observe: told of every attempt as it ends.
        key: what the ledger knows the chain by, and nobody else ever has. When None, the path of its meter, which
            begins with the job's id: a repeated run of the job has the same, and is given the replies again.
        labels: tenant, job and agent, for reports.
        admission: how much of a reply is held before a call leaves.
        final: every call may use what budgets keep for a landing.
        services: what it shares with other chains: a cache of replies, for calls that opt in with ``reuse``.
        residency: rules of where its calls may be served; see ``cascade.placement``.
        outcomes: where ``feedback`` is kept.

    Example:
        >>> async with flow.chain("triage", budget=Budget(usd=0.01)) as chain:     # doctest: +SKIP
        ...     reply = await chain.call("Which ticket is urgent?", output=Triage)
        ...     print(reply.output, reply.rung, chain.spend)
    """

    def __init__(
        self,
        meter: Meter,
        cascade: Cascade,
        ledger: Ledger,
        observe: Callable[[CallRecord], None] | None = None,
        *,
        key: str | None = None,
        labels: Labels | None = None,
        admission: Admission | None = None,
        final: bool = False,
        services: Services | None = None,
        residency: Residency = (),
        outcomes: OutcomeFile | None = None,
    ) -> None:
        self.meter = meter
        self.cascade = cascade
        self._ledger = ledger
        self._ledger_key = key or meter.path
        self._unrepeated = key is not None
        self._labels = replace(labels or Labels(), chain=meter.name)
        self._admission = admission or Strict()
        self._warmth = Warmth()
        self._final = final
        self._services = services or Services()
        self._residency = residency
        self._outcomes = outcomes
        self._last: AnyReply | None = None
        self._observe = observe
        self._repeats: Counter[str] = Counter()
        self._calls = self._attempts = 0
        self._closed = False

    @property
    def spend(self) -> Spend:
        """What the chain has spent so far."""
        return self.meter.spent

    def expect(self, calls: int) -> None:
        """Say how many calls lie ahead, so that spending is paced.

        As the budget gets scarce against the work that is left, cheaper replies are taken: before the limit is
        reached, instead of after.

        Raises:
            UsageError: the number is negative.
        """
        if calls < 0:
            raise UsageError(f"{calls} calls cannot lie ahead.")
        self.meter.expect(calls)

    @overload
    async def call(
        self,
        request: str | Request,
        *,
        name: str = "call",
        checks: tuple[Check, ...] = (),
        cascade: Cascade | None = None,
        last: bool = False,
        timeout_s: float | None = None,
        reuse: Reuse | None = None,
        deferrable_until: datetime | timedelta | float | None = None,
    ) -> Reply[str]: ...

    @overload
    async def call(
        self,
        request: str | Request,
        *,
        output: type[Output],
        name: str = "call",
        checks: tuple[Check, ...] = (),
        cascade: Cascade | None = None,
        last: bool = False,
        timeout_s: float | None = None,
        reuse: Reuse | None = None,
        deferrable_until: datetime | timedelta | float | None = None,
    ) -> Reply[Output]: ...

    async def call(
        self,
        request: str | Request,
        *,
        output: type[Any] = str,
        name: str = "call",
        checks: tuple[Check, ...] = (),
        cascade: Cascade | None = None,
        last: bool = False,
        timeout_s: float | None = None,
        reuse: Reuse | None = None,
        deferrable_until: datetime | timedelta | float | None = None,
    ) -> AnyReply:
        """Ask the cascade, within the budget.

        Args:
            request: a question as text, or a whole Request.
            output: the type of the reply: str, or anything pydantic can validate. A model is told its schema.
            name: what the call is, for reports and spans.
            checks: judges of the reply; all must find it valid.
            cascade: other rungs than the chain's own.
            last: a soft landing: the call goes without tools, and may use what the budgets' ``landing`` keeps back.
            timeout_s: seconds it may take altogether, over all rungs, repairs and waiting.
            reuse: a reply that an earlier call was given may answer this one, at no cost: how old it may be, and how
                alike the questions. None asks anew.
            deferrable_until: when the reply must be there at the latest, as a moment with its zone or seconds from now:
                until then the call may wait for a greener or cheaper hour. It holds nothing while it waits.

        Returns:
            The reply, typed, with its trail of attempts.

        Raises:
            BudgetExceeded: the budget has no room for any rung that could still answer.
            CallFailed: no rung gave a valid reply, or none could in time.
            LedgerError: what the call would cost cannot be recorded; it was not sent.
            UsageError: the chain is closed, or the question is empty.
        """
        return await self._call(request, output, name, checks, cascade, last, timeout_s, None, reuse, deferrable_until)

    def stream(
        self,
        request: str | Request,
        *,
        name: str = "call",
        cascade: Cascade | None = None,
        last: bool = False,
        timeout_s: float | None = None,
    ) -> ReplyStream:
        """Ask the cascade for text, within the budget, and read it as it comes.

        Args:
            request: a question as text, or a whole Request.
            name: what the call is, for reports and spans.
            cascade: other rungs than the chain's own.
            last: a soft landing, as in ``call``.
            timeout_s: seconds it may take altogether, as in ``call``.

        Returns:
            A context manager to iterate over; reading raises what ``call`` raises, and BackendError when a model fails
            after some of its text was read.
        """
        return ReplyStream(lambda tell: self._call(request, str, name, (), cascade, last, timeout_s, tell))

    async def _call(
        self,
        request: str | Request,
        output: type[Any],
        name: str,
        checks: tuple[Check, ...],
        cascade: Cascade | None,
        last: bool,
        timeout_s: float | None,
        tell: Callable[[Delta], None] | None,
        reuse: Reuse | None = None,
        deferrable_until: datetime | timedelta | float | None = None,
    ) -> AnyReply:
        self._refuse_closed()
        if isinstance(request, str):
            if not request.strip():
                raise UsageError("The question is empty. Say what you want to know.")
            request = Request(messages=(Message("user", request),))
        if timeout_s is not None:
            request = replace(request, timeout_s=min(timeout_s, request.timeout_s or timeout_s))
        # Part of what is asked, and so of what the ledger knows the call by.
        # Tools stand at the head of a prompt: in one order, so that servers find the prompt before in their caches.
        schema, tools = request.schema or output_schema(output), _in_order(() if last else request.tools)
        if schema is not request.schema or tools is not request.tools:
            choice = request.tool_choice if tools else ToolChoice()
            request = replace(request, schema=schema, tools=tools, tool_choice=choice)
        name = writable(name)
        self._calls += 1
        key = self._key(name, request)
        waited_s = 0.0
        if deferrable_until is not None and not await self._begun(key, (cascade or self.cascade).rungs):
            request, waited_s = await self._wait((cascade or self.cascade).rungs, request, deferrable_until)
        scope = CallScope(
            self.meter, self._ledger, key, self._observer(name),
            _labelled(self._labels, name), last or self._final, self._admission, self._warmth,
            None if reuse is None else self._reusing(reuse), self._services, self._residency,
            repeats=not self._unrepeated,
        )  # fmt: skip
        with tracing.call_span(name, self.meter.path) as span:
            reply = await (cascade or self.cascade).run(request, scope, output, checks, tell)
            if span.recording:
                span.served(reply.rung, reply.refusal)
                span.left(self.meter.left())
        self.meter.did()
        reply = replace(reply, waited_s=waited_s) if waited_s else reply
        self._last = reply
        return reply

    async def once(self, rung: CodeRung, inputs: JsonValue = None, *, repeatable: bool = False) -> JsonValue:
        """Run code that does something to the world, once over all runs of a job, within the budget.

        Args:
            rung: the code, made with ``Runtime.code_rung``; what it may pay is its ``worst``. Its function gets
                ``(key, inputs)``: the key is the same in every run, and of no other effect.
            inputs: what it is given. With the same inputs it is the same effect, with others another.
            repeatable: it bears to be done again when an earlier run was cut off in the middle of it.

        Returns:
            What it gave back, which must be JSON: in this run, or in the earlier one that did it.

        Raises:
            EffectInDoubt: an earlier run was cut off in the middle of it, and it is not ``repeatable``.
            NotDone: it says so of itself. The next run tries again.
            BudgetExceeded, LedgerError: it was not done, as the budget has no room or it cannot be recorded.
            UsageError: the chain is closed, or what it gave back is no JSON.
        """
        self._refuse_closed()
        name = writable(rung.name)
        request = Request((Message("user", json.dumps(inputs, sort_keys=True)),), inputs=inputs)
        self._calls += 1
        scope = CallScope(
            self.meter, self._ledger, f"{self._ledger_key}|{name}|{request.digest()}|1", self._observer(name),
            _labelled(self._labels, name), self._final,
        )  # fmt: skip
        with tracing.call_span(name, self.meter.path):
            return await once(rung, request, scope, repeatable=repeatable)

    def feedback(self, score: float, reply: AnyReply | None = None) -> None:
        """Say how good a reply turned out to be. Confidence and policies are learned from it.

        What is kept is the score, the rungs that were tried, what their checks said, and digests of their answers;
        never a prompt or a reply.

        Args:
            score: 0 (useless) to 1 (good).
            reply: of this chain; its latest one when left out.

        Raises:
            UsageError: there is no reply yet, the score is out of range, or this chain keeps no outcomes.
        """
        about = reply or self._last
        if about is None:
            raise UsageError("There is no reply to score yet. Call feedback after a call.")
        outcome = Outcome.of(about, score)
        if self._outcomes is None:
            raise UsageError("This chain keeps no outcomes. Open it with Flow.chain, or give Chain an OutcomeFile.")
        self._outcomes.add(outcome)

    def statistics(self) -> ChainStatistics:
        """A snapshot of the chain."""
        return ChainStatistics(self._calls, self._attempts, self.spend)

    def close(self) -> None:
        """End the chain: its clock stops and it takes no more calls."""
        self._closed = True
        self.meter.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _key(self, name: str, request: Request) -> str:
        """Content, not order of awaits, names a call; equal requests are counted, so that each is its own.

        A chain with a key of its own repeats nothing, and may live for a year: its calls are simply counted.
        """
        if self._unrepeated:
            return f"{self._ledger_key}|{name}|{self._calls}"
        content = f"{self._ledger_key}|{name}|{request.digest()}"
        self._repeats[content] += 1
        return f"{content}|{self._repeats[content]}"

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UsageError(f"Chain '{self.meter.path}' is closed; open a new one for another call.")

    async def _begun(self, key: str, rungs: tuple[Rung, ...]) -> bool:
        """Whether an earlier run of the job has waited for this call already, and asked a model."""
        if self._unrepeated:
            return False
        asked = [attempt_key(key, rung, 1) for rung in rungs if isinstance(rung, ModelRung)]
        return any([await self._ledger.find(attempt) is not None for attempt in asked])

    async def _wait(
        self, rungs: tuple[Rung, ...], request: Request, until: datetime | timedelta | float
    ) -> tuple[Request, float]:
        """Wait for a better hour, where there is one before the deadline and the budget's own end.

        Returns:
            The request, which must be over by the deadline, and the seconds that were waited.
        """
        placement = self._services.placement
        moment = deadline(until, placement.clock.now())
        waited_s = await placement.wait(rungs, request, self._residency, moment, self.meter.room().seconds)
        self._refuse_closed()
        left_s = max((moment - placement.clock.now()).total_seconds(), 0.0)
        timeout_s = left_s if request.timeout_s is None else min(left_s, request.timeout_s)
        return replace(request, timeout_s=timeout_s), waited_s

    def _reusing(self, reuse: Reuse) -> Reusing:
        replies = self._services.replies
        if replies is None:
            raise UsageError("This chain has no cache of replies. Open it with Flow.chain, or give it one.")
        embedding = None if reuse.similarity is None else self._services.embedding
        if reuse.similarity is not None and embedding is None:
            raise UsageError("Other wordings of a question need an embedder. Set one in [research.embedder].")
        return Reusing(replies, reuse, self._labels.tenant, embedding)

    def _observer(self, name: str) -> Callable[[Attempt], None]:
        def observe(attempt: Attempt) -> None:
            self._attempts += 1
            if self._observe is not None:
                self._observe(CallRecord(self.meter.path, name, attempt))

        return observe


@functools.lru_cache(maxsize=1_000)
def _labelled(labels: Labels, call: str) -> Labels:
    """The labels of a chain's calls of this name: few names, many calls."""
    return replace(labels, call=call)


def _in_order(tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
    """Tools by name; the very same where they are."""
    return tools if len(tools) < 2 else tuple(sorted(tools, key=lambda tool: tool.name))
