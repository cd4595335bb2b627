"""One call on its way up the rungs: which rung next, whether its reply is good enough, what is served.

Every attempt is held and recorded before it leaves and settled after it. May import everything on the floors below.
Next: ``sending`` and ``computing`` (one attempt), ``scope`` (how it gets its room), ``policy``; ``cascade`` climbs.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from agentflow.budget.currency import MICRO
from agentflow.budget.ledger import Entry, Labels
from agentflow.budget.money import NANO
from agentflow.budget.spend import Spend
from agentflow.cascade.checks import Candidate, Check, output_schema, parse_output, run_checks
from agentflow.cascade.computing import compute
from agentflow.cascade.confidence import answer_key
from agentflow.cascade.outlook import outlook, with_return_costs
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Attempt, Outcome, Reply, Verdict
from agentflow.cascade.routing.state import Abstain, Decision, Probe, Seen, State, Stop, Try
from agentflow.cascade.rung import CodeRung, ModelRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.sending import SendFailed, send
from agentflow.cascade.signals import Signal
from agentflow.errors import BudgetExceeded, CallFailed
from agentflow.messages import Completion, Delta, Message, Request
from agentflow.telemetry import tracing

# The place of a reply that is no candidate: what was asked about another one.
_NOWHERE: Final = -1


@dataclass(slots=True)
class _Tried:
    """A reply of the rung at ``place``, with its verdict; ``output`` is None when it did not parse.

    ``signal`` is its confidence before calibration.
    """

    place: int
    output: Any
    text: str
    verdict: Verdict
    completion: Completion | None = None
    signal: float | None = None
    attempt: Attempt = field(init=False)


class _Judge(Protocol):
    async def __call__(
        self, rung: ModelRung, request: Request, completion: Completion, spend: Spend, *, replayed: bool
    ) -> _Tried: ...


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
        self.tried: list[_Tried] = []
        self.closed: set[int] = set()
        self.running: set[int] = set()
        self.probed: set[int] = set()
        self.refusal: BudgetExceeded | None = None
        self.ended = False
        self._decision: Decision | None = None

    async def run(self, request: Request) -> Reply[Any]:
        """Climb until a reply is good enough, or nothing is left to try."""
        while not self.ended:
            # What was decided as the last attempt was judged still holds, unless something has changed since.
            decision, self._decision = self._decision or self.policy.choose(self._state(request)), None
            match decision:
                case Stop(place):
                    return self._served(self.tried[place])
                case Try(place, _, beside):
                    await self._try((place, *beside), request)
                case Probe(place):
                    await self._probe(self.tried[place], request)
                case Abstain(reason):
                    raise self.refusal or self._failed(reason)
        # The budget refused a rung, and says that no other is to be tried.
        best = self._state(request).best()
        if best is None:
            raise self.refusal or self._failed("the budget is spent")
        return self._served(self.tried[best])

    def _failed(self, reason: str) -> CallFailed:
        tried = "; ".join(f"{a.rung}: {a.reason}" for a in self.trail) or "the cascade has no rungs"
        return CallFailed(
            f"No rung of cascade '{self.cascade}' gave a valid reply ({tried}): {reason}. "
            "Add a stronger model to the cascade, or loosen its checks."
        )

    async def _try(self, places: tuple[int, ...], request: Request) -> None:
        """Ask rungs, side by side when there are several; the first good reply ends the others."""
        if len(places) == 1:
            await self._one(places[0], request)
            return
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._one(place, request)) for place in places]
            for next_done in asyncio.as_completed(asked):
                if await next_done:
                    for task in asked:
                        task.cancel()
                    break
        # Decided while others were still running: what they ended with counts too.
        self._decision = None

    async def _one(self, place: int, request: Request) -> bool:
        """Ask one rung. Returns whether its reply ends the climb."""
        rung = self.rungs[place]
        self.closed.add(place)
        self.running.add(place)
        try:
            tried = await (self._code(rung, request) if isinstance(rung, CodeRung) else self._model(rung, request))
        except BudgetExceeded as refused:
            self.refusal = self.refusal or refused
            self._record(self._attempt(rung, "refused", Spend(), reason=str(refused)))
            self.ended = self.ended or self.scope.meter.on_exceed(refused) != "degrade"
            return False
        finally:
            self.running.discard(place)
        return tried is not None and tried.attempt.outcome == "accepted"

    def _state(self, request: Request, judged: int | None = None) -> State:
        """What the policy is shown: every rung, and the latest reply of each that was tried.

        Rungs that still run beside the one being ``judged`` are still open: their replies may come to be better.
        """
        latest = {tried.place: tried for tried in self.tried}
        seen = tuple(Seen(place, tried.verdict, self._answer(tried)) for place, tried in latest.items())
        self.tried = list(latest.values())
        shut = self.closed - self.running | {judged}
        rungs = tuple(
            outlook(rung, request, self.scope, self._signal(place), open=place not in shut, priced=self._priced(place))
            for place, rung in enumerate(self.rungs)
        )
        if self.policy.routing is not None:
            rungs = with_return_costs(rungs, self.rungs, request, self.scope)
        return State(rungs, seen, task=self.scope.labels.call)

    def _answer(self, tried: _Tried) -> str | None:
        """What tells whether two replies agree; found out only where somebody will compare them."""
        compared = self.policy.routing is not None or len(self.tried) > 1
        return answer_key(tried.output) if compared else None

    def _signal(self, place: int) -> Signal | None:
        """What could find out the confidence of a rung's reply, if it has not been asked yet."""
        return None if place in self.probed else self.policy.signal

    async def _probe(self, tried: _Tried, request: Request) -> None:
        """Pay for what tells a reply's confidence."""
        signal, rung = self.policy.signal, self.rungs[tried.place]
        self.probed.add(tried.place)
        if signal is None or isinstance(rung, CodeRung):
            return
        candidate = Candidate(request, tried.output, tried.completion)
        verdict = tried.verdict & await signal.read(rung, candidate, self.output, self._evidence)
        tried.signal, tried.verdict = verdict.confidence, self._calibrated(rung, verdict)

    async def _evidence(self, rung: ModelRung, request: Request) -> str | None:
        """Ask for what says something of another reply: within the budget, and never instead of it."""
        try:
            heard = await self._ask(rung, request, self._noted)
        except BudgetExceeded as refused:
            self._record(self._attempt(rung, "refused", Spend(), reason=str(refused)))
            return None
        return None if heard is None else heard.text

    async def _noted(
        self, rung: ModelRung, request: Request, completion: Completion, spend: Spend, *, replayed: bool
    ) -> _Tried:
        """Evidence is not judged itself."""
        heard = _Tried(_NOWHERE, completion.text, completion.text, Verdict(valid=True))
        heard.attempt = self._attempt(rung, "evidence", spend, "asked about another reply", replayed=replayed)
        self._record(heard.attempt)
        return heard

    def _priced(self, place: int) -> bool:
        """Whether the policy will want to know what a rung costs: the fixed order asks of the next one, and seldom."""
        if place in self.closed:
            return False
        if self.policy.routing is not None:
            return True
        return bool(self.tried) and not self.policy.good_enough(self.tried[-1].verdict, last=False)

    async def _code(self, rung: CodeRung, request: Request) -> _Tried:
        # Running code again is new work, and is charged as such: its key is never used twice.
        key = f"{self._key(rung)}|{secrets.token_hex(4)}"
        hold = await self.scope.reserve(rung.quote(), key, self._labels(rung))
        assert hold is not None, "nobody else has this key"
        with hold, tracing.code_span(rung.name, number=len(self.trail) + 1) as span:
            answer, spend = await compute(rung, request, hold, key, self.scope)
            verdict = run_checks(self.checks, Candidate(request, answer.value, None)) & Verdict(True, answer.confidence)
            tried = await self._judged(rung, request, answer.value, "", verdict, spend)
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
            judge = functools.partial(self._judge_completion, repair=repair > 0)
            tried = await self._ask(rung, request, judge, self._live(rung), repair=repair > 0)
            if tried is None or tried.verdict.valid:
                break
        return tried

    async def _ask(
        self,
        rung: ModelRung,
        request: Request,
        judge: _Judge,
        tell: Callable[[Delta], None] | None = None,
        *,
        repair: bool = False,
    ) -> _Tried | None:
        """One attempt: replay it, or hold, send, settle; then judge it. None when the backend gave no reply."""
        while True:
            while (done := await self._done(rung)) is not None:
                if done.completion is not None:
                    return await judge(rung, request, done.completion, Spend(), replayed=True)
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
                completion, spend = await send(rung, request, hold, key, self.scope, tell)
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
            if self.policy.routing is not None:
                self.scope.warmth.saw(rung, request, completion.usage)
            tried = await judge(rung, request, completion, spend, replayed=False)
            self._note(key, tried.attempt)
            span.finish(_facts(tried.attempt), completion)
            return tried

    async def _done(self, rung: ModelRung) -> Entry | None:
        """What an earlier run of the job recorded of this attempt; None when it may leave."""
        entry = await self.scope.ledger.find(self._key(rung), replay=True)
        return None if entry is None or entry.state in ("held", "released") else entry

    async def _judge_completion(
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
        return await self._judged(
            rung, request, value, completion.text, verdict, spend, completion, repair=repair, replayed=replayed
        )

    async def _judged(
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
        place = self.rungs.index(rung)
        tried = _Tried(place, value, text, self._calibrated(rung, verdict), completion, verdict.confidence)
        self.tried.append(tried)
        decision = self.policy.choose(self._state(request, place))
        if isinstance(decision, Probe) and self.tried[decision.seen] is tried:
            await self._probe(tried, request)
            decision = self.policy.choose(self._state(request, place))
        self._decision, verdict = decision, tried.verdict
        stopped = isinstance(decision, Stop) and self.tried[decision.seen] is tried
        outcome: Outcome = "accepted" if stopped else "kept" if verdict.valid else "rejected"
        reason = decision.reason if outcome == "kept" else verdict.reason
        attempt = self._attempt(rung, outcome, spend, reason, verdict.confidence, repair=repair, replayed=replayed)
        tried.attempt = replace(attempt, signal=tried.signal)
        self._record(tried.attempt)
        return tried

    def _calibrated(self, rung: Rung, verdict: Verdict) -> Verdict:
        """The same verdict, its confidence as good as it has proved to be."""
        if self.policy.calibration is None or verdict.confidence is None:
            return verdict
        chance = self.policy.calibration.probability(rung.name, self.scope.labels.call, verdict.confidence)
        return verdict if chance is None else replace(verdict, confidence=chance)

    def _live(self, rung: ModelRung) -> Callable[[Delta], None] | None:
        """Whom to tell of a reply's pieces as they come: somebody, if nothing that can follow would replace them."""
        if self.tell is None or self.output is not str or self.checks:
            return None
        decided_later = rung.logprobs or self.policy.signal is not None or self.policy.routing is not None
        return None if decided_later and rung is not self.rungs[-1] else self._pass_on

    def _pass_on(self, delta: Delta) -> None:
        assert self.tell is not None
        self.told = True
        self.tell(delta)

    def _served(self, tried: _Tried) -> Reply[Any]:
        if self.tell is not None and not self.told:
            self.tell(Delta(str(tried.output)))
        answers = {id(one.attempt): self._answer(one) for one in self.tried}
        trail = [replace(a, answer=answers[id(a)]) if answers.get(id(a)) else a for a in self.trail]
        place = next(place for place, attempt in enumerate(self.trail) if attempt is tried.attempt)
        served = trail[place] = replace(trail[place], outcome="accepted")
        return Reply(
            tried.output, tried.text, served.rung, served.kind, served.confidence, tuple(trail), self.refusal,
            tried.completion,
        )  # fmt: skip

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
        """Attempts of a rung are counted by themselves: which of two rungs asked side by side ends first is timing."""
        before = sum(attempt.rung == rung.name for attempt in self.trail)
        return f"{self.scope.key}|{before + 1}|{rung.name}"


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
