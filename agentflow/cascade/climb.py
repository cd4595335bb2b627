"""One call on its way up the rungs: which rung next, whether its reply is good enough, what is served.

Every attempt is held and recorded before it leaves and settled after it. May import everything on the floors below.
Next: ``sending`` and ``computing`` (one attempt), ``scope`` (how it gets its room), ``policy``; ``cascade`` climbs.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agentflow.budget.currency import MICRO
from agentflow.budget.ledger import Entry, Labels
from agentflow.budget.money import NANO
from agentflow.budget.spend import Spend
from agentflow.cascade.checks import Candidate, Check, output_schema, parse_output, run_checks
from agentflow.cascade.computing import compute
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Attempt, Outcome, Reply, Verdict
from agentflow.cascade.rung import CodeRung, ModelRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.sending import SendFailed, send
from agentflow.errors import BudgetExceeded, CallFailed
from agentflow.messages import Completion, Delta, Message, Request
from agentflow.telemetry import tracing


@dataclass(frozen=True, slots=True)
class _Tried:
    """A reply with its verdict; ``output`` is None when it did not parse."""

    output: Any
    text: str
    verdict: Verdict
    attempt: Attempt
    completion: Completion | None = None


class Climb:
    """One call on its way up the rungs of a cascade: see ``Cascade``."""

    def __init__(
        self,
        cascade: str,
        rungs: tuple[Rung, ...],
        policy: Policy,
        scope: CallScope,
        output: type[Any],
        checks: tuple[Check, ...],
        tell: Callable[[Delta], None] | None = None,
    ) -> None:
        self.cascade = cascade
        self.rungs = rungs
        self.policy = policy
        self.scope = scope
        self.output = output
        self.checks = checks
        self.tell = tell
        self.told = False
        self.trail: list[Attempt] = []
        self.best: _Tried | None = None
        self.refusal: BudgetExceeded | None = None

    async def run(self, request: Request) -> Reply[Any]:
        """Climb until a reply is good enough, or nothing is left to try."""
        for rung in self.rungs:
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
            f"No rung of cascade '{self.cascade}' gave a valid reply ({reasons}). "
            "Add a stronger model to the cascade, or loosen its checks."
        )

    async def _code(self, rung: CodeRung, request: Request) -> _Tried:
        # Running code again is new work, and is charged as such: its key is never used twice.
        key = f"{self._key(rung)}|{secrets.token_hex(4)}"
        hold = await self.scope.reserve(rung.quote(), key, self._labels(rung))
        assert hold is not None, "nobody else has this key"
        with hold, tracing.code_span(rung.name, number=len(self.trail) + 1) as span:
            answer, spend = await compute(rung, request, hold, key, self.scope)
            verdict = run_checks(self.checks, Candidate(request, answer.value, None)) & Verdict(True, answer.confidence)
            tried = self._judged(rung, request, answer.value, "", verdict, spend)
            self._note(key, tried.attempt)
            span.finish(_facts(tried.attempt))
            return tried

    async def _model(self, rung: ModelRung, request: Request) -> _Tried | None:
        """Ask a model, and when its reply fails the checks, tell it why and ask again."""
        if request.schema is None:
            request = replace(request, schema=output_schema(self.output))
        tried: _Tried | None = None
        for repair in range(self.policy.repairs + 1):
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
            least = self.policy.min_output
            reserved = await self.scope.reserve_reply(rung, request, key, least, labels)
            if reserved is not None:
                break
        request, hold = reserved
        model = tracing.ModelFacts(rung.backend.provider, rung.model, rung.backend.in_process, rung.name)
        with tracing.chat_span(model, request, number=len(self.trail) + 1) as span:
            span.held(hold.quote.tokens, hold.quote.nano_usd / NANO, hold.quote.microjoules / MICRO)
            try:
                completion, spend = await send(rung, request, hold, key, self.scope, self._live(rung))
            except SendFailed as failed:
                attempt = self._attempt(rung, "failed", failed.spend, reason=str(failed.error), repair=repair)
                self._record(attempt)
                self._note(key, attempt)
                span.fail(failed.error, _facts(attempt))
                if self.told:
                    # What was read already cannot be taken back, and another rung would begin anew.
                    raise failed.error from failed
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
        if completion.tool_calls and self.output is str:
            # Tools that are asked for are the reply, whether or not there is text beside them.
            value, verdict = completion.text, Verdict(valid=True)
        if completion.finish_reason == "length" and self.output is not str:
            verdict = verdict & Verdict(verdict.valid, reason="the reply was cut at its token limit; answer shorter")
        if verdict.valid:
            verdict = verdict & run_checks(self.checks, Candidate(request, value, completion))
        return self._judged(
            rung, request, value, completion.text, verdict, spend, completion, repair=repair, replayed=replayed
        )

    def _judged(
        self,
        rung: Rung,
        request: Request,
        value: Any,
        text: str,
        verdict: Verdict,
        spend: Spend,
        completion: Completion | None = None,
        *,
        repair: bool = False,
        replayed: bool = False,
    ) -> _Tried:
        accepted = self._good_enough(verdict, self.rungs.index(rung), request)
        outcome: Outcome = "accepted" if accepted else "kept" if verdict.valid else "rejected"
        attempt = self._attempt(
            rung, outcome, spend, verdict.reason, verdict.confidence, repair=repair, replayed=replayed
        )
        if outcome == "kept":
            bar = self.policy.accept
            attempt = replace(attempt, reason=f"confidence {verdict.confidence:.2f} is below {bar:.2f}")
        self._record(attempt)
        tried = _Tried(value, text, verdict, attempt, completion)
        if verdict.valid and (self.best is None or _confidence(tried) >= _confidence(self.best)):
            self.best = tried
        return tried

    def _good_enough(self, verdict: Verdict, position: int, request: Request) -> bool:
        """Whether to stop here; the dearer the rest of the budget has become, the sooner."""
        policy = self.policy
        last = position == len(self.rungs) - 1
        if last or policy.good_enough(verdict, last=False) or not verdict.valid:
            return policy.good_enough(verdict, last=last)
        following = self.rungs[position + 1]
        quote = following.quote() if isinstance(following, CodeRung) else following.quote(request)
        return policy.good_enough(verdict, last=False, dearness=self.scope.meter.dearness(quote))

    def _live(self, rung: ModelRung) -> Callable[[Delta], None] | None:
        """Whom to tell of a reply's pieces as they come: somebody, if nothing that can follow would replace them."""
        if self.tell is None or self.output is not str or self.checks:
            return None
        if rung.logprobs and rung is not self.rungs[-1]:
            return None
        return self._pass_on

    def _pass_on(self, delta: Delta) -> None:
        assert self.tell is not None
        self.told = True
        self.tell(delta)

    def _served(self, tried: _Tried) -> Reply[Any]:
        if self.tell is not None and not self.told:
            self.tell(Delta(str(tried.output)))
        served = replace(tried.attempt, outcome="accepted")
        trail = tuple(served if attempt is tried.attempt else attempt for attempt in self.trail)
        return Reply(
            tried.output, tried.text, served.rung, served.kind, served.confidence, trail, self.refusal, tried.completion
        )

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
            cascade=self.cascade,
            rung=rung.name,
            kind="code" if code else "model",
            model="" if code else rung.model,
        )

    def _key(self, rung: Rung) -> str:
        return f"{self.scope.key}|{len(self.trail) + 1}|{rung.name}"


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
