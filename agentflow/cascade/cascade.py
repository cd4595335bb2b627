"""Cascade: ordered rungs, cheapest first, climbed only when the evidence says that a reply is not good enough.

One call walks the rungs. Every attempt is held and recorded before it leaves and settled after it. May import
everything on the floors below. Next: ``scope`` (how an attempt gets its room), ``policy``; ``chain`` calls it.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from agentflow.budget.currency import MICRO
from agentflow.budget.hold import Hold
from agentflow.budget.ledger import Entry, Labels
from agentflow.budget.money import NANO, format_usd
from agentflow.budget.spend import Quote, Spend
from agentflow.cascade.checks import Candidate, Check, output_schema, parse_output, run_checks
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Attempt, Outcome, Reply, Verdict
from agentflow.cascade.rung import DELIVERY_S, CodeRung, ModelRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.errors import BackendError, BackendTimeout, BadReply, BudgetExceeded, CallFailed, UsageError
from agentflow.messages import Completion, Message, Request
from agentflow.telemetry import tracing

Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class Cascade:
    """An ordered set of rungs and the policy that climbs them.

    Args:
        name: as the configuration calls it.
        rungs: cheapest first.
        policy: when to stop, how often to repair.
    """

    name: str
    rungs: tuple[Rung, ...]
    policy: Policy = field(default_factory=Policy)

    async def run(
        self, request: Request, scope: CallScope, output: type[Output], checks: tuple[Check, ...] = ()
    ) -> Reply[Output]:
        """Climb until a reply is good enough.

        Returns:
            The first good reply; when none is, the most confident valid one.

        Raises:
            BudgetExceeded: no valid reply, and at least one rung was refused.
            CallFailed: every rung was tried and none gave a valid reply.
            LedgerError: an attempt could not be recorded; it was not sent.
        """
        return await _Climb(self, scope, output, checks).run(request)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A reply with its verdict; ``output`` is None when it did not parse."""

    output: Any
    text: str
    verdict: Verdict
    attempt: Attempt


class _Climb:
    """One call on its way up the rungs."""

    def __init__(self, cascade: Cascade, scope: CallScope, output: type[Any], checks: tuple[Check, ...]) -> None:
        self.cascade = cascade
        self.scope = scope
        self.output = output
        self.checks = checks
        self.trail: list[Attempt] = []
        self.best: _Tried | None = None
        self.refusal: BudgetExceeded | None = None

    async def run(self, request: Request) -> Reply[Any]:
        for rung in self.cascade.rungs:
            try:
                tried = (
                    await self._code(rung, request) if isinstance(rung, CodeRung) else await self._model(rung, request)
                )
            except BudgetExceeded as refused:
                self.refusal = self.refusal or refused
                self._record(self._attempt(rung, "refused", Spend(), reason=str(refused)))
                if self.scope.meter.on_exceed(refused) == "degrade":
                    continue
                break
            if tried is not None and tried.attempt.outcome == "accepted":
                return self._served(tried)
        if self.best is not None:
            return self._served(self.best)
        if self.refusal is not None:
            raise self.refusal
        reasons = "; ".join(f"{a.rung}: {a.reason}" for a in self.trail) or "the cascade has no rungs"
        raise CallFailed(
            f"No rung of cascade '{self.cascade.name}' gave a valid reply ({reasons}). "
            "Add a stronger model to the cascade, or loosen its checks."
        )

    async def _code(self, rung: CodeRung, request: Request) -> _Tried:
        # Running code again is new work, and is charged as such: its key is never used twice.
        key = f"{self._key(rung)}|{secrets.token_hex(4)}"
        hold = await self.scope.reserve(rung.quote(), key, self._labels(rung))
        assert hold is not None, "nobody else has this key"
        with hold, tracing.code_span(rung.name, number=len(self.trail) + 1) as span:
            started = asyncio.get_running_loop().time()
            try:
                answer, spend = await rung.run(request)
            except BaseException:
                await self._end_failed_code(rung, hold, key, asyncio.get_running_loop().time() - started)
                raise
            hold.settle(spend)
            await self.scope.ledger.close(key, "settled", spend=spend)
            _refuse_undeclared(rung, spend)
            verdict = run_checks(self.checks, Candidate(request, answer.value, None)) & Verdict(True, answer.confidence)
            tried = self._judged(rung, request, answer.value, "", verdict, spend)
            self._note(key, tried.attempt)
            span.finish(_facts(tried.attempt))
            return tried

    async def _end_failed_code(self, rung: CodeRung, hold: Hold, key: str, seconds: float) -> None:
        """Code that may pay someone is charged at its worst; what only computes, for the time it took."""
        if rung.pays:
            spend = Spend.at_worst(hold.quote, seconds=seconds)
            hold.settle(spend)
            await self.scope.ledger.close(key, "in_doubt", spend=spend)
        else:
            spend = rung.computed(seconds)
            hold.settle(spend)
            await self.scope.ledger.close(key, "settled", spend=spend)

    async def _model(self, rung: ModelRung, request: Request) -> _Tried | None:
        """Ask a model, and when its reply fails the checks, tell it why and ask again."""
        if request.schema is None:
            request = replace(request, schema=output_schema(self.output))
        tried: _Tried | None = None
        for repair in range(self.cascade.policy.repairs + 1):
            if tried is not None:
                request = _repaired(request, tried)
            tried = await self._ask(rung, request, repair=repair > 0)
            if tried is None or tried.verdict.valid:
                break
        return tried

    async def _ask(self, rung: ModelRung, request: Request, *, repair: bool) -> _Tried | None:
        """One attempt: replay it, or hold, send, settle. None when the backend gave no reply."""
        while True:
            while (done := await self._done(rung)) is not None:
                if done.completion is not None:
                    return self._judge_completion(rung, request, done.completion, Spend(), repair=repair, replayed=True)
                known = done.outcome == "failed"
                reason = "it failed in an earlier run" if known else "an earlier run was cut off during it"
                self._record(self._attempt(rung, "failed", Spend(), reason=reason, repair=repair, replayed=True))
                if known:
                    return None
            key, labels = self._key(rung), self._labels(rung)
            least = self.cascade.policy.min_output
            reserved = await self.scope.reserve_reply(rung, request, key, least, labels)
            if reserved is not None:
                break
        request, hold = reserved
        model = tracing.ModelFacts(rung.backend.provider, rung.model, rung.backend.in_process, rung.name)
        with tracing.chat_span(model, request, number=len(self.trail) + 1) as span:
            span.held(hold.quote.tokens, hold.quote.nano_usd / NANO, hold.quote.microjoules / MICRO)
            try:
                completion, spend = await self._send(rung, request, hold, key)
            except _Failed as failed:
                attempt = self._attempt(rung, "failed", failed.spend, reason=str(failed.error), repair=repair)
                self._record(attempt)
                self._note(key, attempt)
                span.fail(failed.error, _facts(attempt))
                return None
            self.scope.admission.saw(rung.name, labels.call, completion.usage.output)
            tried = self._judge_completion(rung, request, completion, spend, repair=repair)
            self._note(key, tried.attempt)
            span.finish(_facts(tried.attempt), completion)
            return tried

    async def _done(self, rung: ModelRung) -> Entry | None:
        """What an earlier run of the job recorded of this attempt; None when it may leave."""
        entry = await self.scope.ledger.find(self._key(rung), replay=True)
        return None if entry is None or entry.state in ("held", "released") else entry

    async def _send(self, rung: ModelRung, request: Request, hold: Hold, key: str) -> tuple[Completion, Spend]:
        """Between hold and settle. However it ends, the hold ends with it."""
        with hold:
            started = asyncio.get_running_loop().time()
            left = self.scope.meter.room(final=self.scope.final).seconds
            if left is not None:
                left = max(left - DELIVERY_S, 0.0)
                request = replace(request, timeout_s=min(left, request.timeout_s or left))
            try:
                async with asyncio.timeout(request.timeout_s):
                    completion = await rung.backend.complete(rung.model, request)
                spend = _believable_spend(rung, completion)
            except BaseException as error:
                seconds = asyncio.get_running_loop().time() - started
                failure = _backend_error(error, rung, request)
                if failure is not None and not failure.sent:
                    hold.release()
                    await self.scope.ledger.close(key, "released")
                    raise _Failed(failure, Spend(seconds=seconds)) from error
                reply = min(request.max_output_tokens or rung.default_output, hold.quote.tokens)
                worst = Spend.at_worst(hold.quote, reply, seconds)
                hold.settle(worst)
                await self.scope.ledger.close(key, "in_doubt", spend=worst)
                if failure is None:
                    raise
                raise _Failed(failure, worst) from error
            hold.settle(spend)
            first_token_s = completion.timings.first_token_s
            await self.scope.ledger.close(
                key, "settled", spend=spend, completion=completion, first_token_s=first_token_s
            )
            return completion, spend

    def _judge_completion(
        self,
        rung: ModelRung,
        request: Request,
        completion: Completion,
        spend: Spend,
        *,
        repair: bool,
        replayed: bool = False,
    ) -> _Tried:
        value, verdict = parse_output(self.output, completion.text)
        if completion.finish_reason == "length" and self.output is not str:
            verdict = verdict & Verdict(verdict.valid, reason="the reply was cut at its token limit; answer shorter")
        if verdict.valid:
            verdict = verdict & run_checks(self.checks, Candidate(request, value, completion))
        return self._judged(rung, request, value, completion.text, verdict, spend, repair=repair, replayed=replayed)

    def _judged(
        self,
        rung: Rung,
        request: Request,
        value: Any,
        text: str,
        verdict: Verdict,
        spend: Spend,
        *,
        repair: bool = False,
        replayed: bool = False,
    ) -> _Tried:
        accepted = self._good_enough(verdict, self.cascade.rungs.index(rung), request)
        outcome: Outcome = "accepted" if accepted else "kept" if verdict.valid else "rejected"
        attempt = self._attempt(
            rung, outcome, spend, verdict.reason, verdict.confidence, repair=repair, replayed=replayed
        )
        if outcome == "kept":
            bar = self.cascade.policy.accept
            attempt = replace(attempt, reason=f"confidence {verdict.confidence:.2f} is below {bar:.2f}")
        self._record(attempt)
        tried = _Tried(value, text, verdict, attempt)
        if verdict.valid and (self.best is None or _confidence(tried) >= _confidence(self.best)):
            self.best = tried
        return tried

    def _good_enough(self, verdict: Verdict, position: int, request: Request) -> bool:
        """Whether to stop here; the dearer the rest of the budget has become, the sooner."""
        policy = self.cascade.policy
        last = position == len(self.cascade.rungs) - 1
        if last or policy.good_enough(verdict, last=False) or not verdict.valid:
            return policy.good_enough(verdict, last=last)
        following = self.cascade.rungs[position + 1]
        quote = following.quote() if isinstance(following, CodeRung) else following.quote(request)
        return policy.good_enough(verdict, last=False, dearness=self.scope.meter.dearness(quote))

    def _served(self, tried: _Tried) -> Reply[Any]:
        served = replace(tried.attempt, outcome="accepted")
        trail = tuple(served if attempt is tried.attempt else attempt for attempt in self.trail)
        return Reply(tried.output, tried.text, served.rung, served.kind, served.confidence, trail, self.refusal)

    def _attempt(
        self,
        rung: Rung,
        outcome: Outcome,
        spend: Spend,
        reason: str = "",
        confidence: float | None = None,
        *,
        repair: bool = False,
        replayed: bool = False,
    ) -> Attempt:
        return Attempt(
            rung.name,
            "code" if isinstance(rung, CodeRung) else "model",
            len(self.trail) + 1,
            outcome,
            spend,
            confidence,
            reason,
            repair,
            replayed,
            in_doubt=spend.in_doubt > 0,
        )

    def _record(self, attempt: Attempt) -> None:
        self.trail.append(attempt)
        self.scope.observe(attempt)

    def _note(self, key: str, attempt: Attempt) -> None:
        self.scope.ledger.judge(key, attempt.outcome, attempt.confidence)

    def _labels(self, rung: Rung) -> Labels:
        code = isinstance(rung, CodeRung)
        return replace(
            self.scope.labels,
            cascade=self.cascade.name,
            rung=rung.name,
            kind="code" if code else "model",
            model="" if code else rung.model,
        )

    def _key(self, rung: Rung) -> str:
        return f"{self.scope.key}|{len(self.trail) + 1}|{rung.name}"


class _Failed(Exception):
    """An attempt that ended without a reply, and what it is charged."""

    def __init__(self, error: BackendError, spend: Spend) -> None:
        super().__init__(str(error))
        self.error = error
        self.spend = spend


def _backend_error(error: BaseException, rung: ModelRung, request: Request) -> BackendError | None:
    """The backend's failure behind an exception; None for a cancellation or a defect, which pass through."""
    if isinstance(error, BackendError):
        return error
    if isinstance(error, TimeoutError):
        return BackendTimeout(
            f"'{rung.name}' gave no whole reply within {request.timeout_s:.3g} s. "
            "Raise its timeout_s or the budget's seconds."
        )
    return None


def _refuse_undeclared(rung: CodeRung, spend: Spend) -> None:
    """Code that spends more than it declared was not held for it: the next one would slip under a limit as well."""
    if spend.nano_usd > rung.worst.nano_usd or spend.tokens > rung.worst.tokens:
        raise UsageError(
            f"The code rung '{rung.name}' spent {spend.tokens:,} tokens and {format_usd(spend.nano_usd)}, and declared "
            f"at most {rung.worst.tokens:,} and {format_usd(rung.worst.nano_usd)}. It is charged. State its worst case."
        )


def _believable_spend(rung: ModelRung, completion: Completion) -> Spend:
    """What a reply used; a server whose counts cannot be is charged for all that was held.

    Raises:
        BadReply: the reply's own figures cannot be.
    """
    try:
        spend = rung.spend(completion)
        Quote(*spend.amounts[:3], micrograms=spend.amounts[3])
        return spend
    except UsageError as error:
        raise BadReply(
            f"'{rung.name}' sent figures that cannot be: {error} It is charged at its worst case."
        ) from error


def _repaired(request: Request, tried: _Tried) -> Request:
    """The same request with the failed reply and what was wrong with it."""
    complaint = f"That reply was not accepted: {tried.verdict.reason}. Answer again, mending exactly this."
    turns = (Message("assistant", tried.text), Message("user", complaint))
    return replace(request, messages=(*request.messages, *turns))


def _facts(attempt: Attempt) -> tracing.AttemptFacts:
    energy = attempt.spend.energy
    return tracing.AttemptFacts(
        attempt.outcome,
        attempt.reason,
        attempt.confidence,
        attempt.spend.nano_usd,
        (energy.mean, energy.low, energy.high),
        energy.provenance,
        attempt.spend.seconds,
        attempt.replayed,
    )


def _confidence(tried: _Tried) -> float:
    return 1.0 if tried.verdict.confidence is None else tried.verdict.confidence
