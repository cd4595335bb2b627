"""One call on its way up the rungs: which rung next, whether its reply is good enough, what is served.

May import everything on the floors below. Next: ``asking`` and ``computing`` (one attempt), ``outlook`` (what the
policy is shown), ``policy``; ``cascade`` climbs with it.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentflow.budget.spend import Spend
from agentflow.cascade.asking import Asking, Heard, Listener
from agentflow.cascade.capabilities import lack
from agentflow.cascade.checks import Candidate, Check, parse_output, run_checks
from agentflow.cascade.computing import compute
from agentflow.cascade.confidence import answer_key
from agentflow.cascade.lane import NoTurn
from agentflow.cascade.outlook import outlook, with_return_costs
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Attempt, Outcome, Reply, Verdict
from agentflow.cascade.routing.router import question_features
from agentflow.cascade.routing.state import Abstain, Decision, Probe, Seen, State, Stop, Try
from agentflow.cascade.rung import CodeRung, ModelRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.signals import Signal
from agentflow.cascade.trail import Trail, facts
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
        skipped: Sequence[Attempt] = (),
    ) -> None:
        self.cascade = cascade
        self.rungs = rungs
        self.policy = policy
        self.scope = scope
        self.output = output
        self.checks = checks
        self.listener = None if tell is None else Listener(tell)
        self.trail = Trail(cascade, scope, skipped)
        self.tried: list[_Tried] = []
        self.closed: set[int] = set()
        self.running: set[int] = set()
        self.probed: set[int] = set()
        self.refusal: BudgetExceeded | None = None
        self.ended = False
        self._decision: Decision | None = None
        self._numbers: tuple[float, ...] | None = None
        self._asked: Request | None = None

    async def run(self, request: Request) -> Reply[Any]:
        """Climb until a reply is good enough, or nothing is left to try."""
        self._asked = request
        now = asyncio.get_running_loop().time()
        ends_at = None if request.timeout_s is None else now + request.timeout_s
        self.asking: Asking[_Tried] = Asking(
            self.scope, self.trail, self.policy.min_output, ends_at, self._others,
            prices_warmth=self.policy.routing is not None,
        )  # fmt: skip
        self._decision = await self._decided_before()
        while not self.ended:
            # What was decided as the last attempt was judged still holds, unless something has changed since.
            decision, self._decision = self._decision or self.policy.choose(self._state(request)), None
            match decision:
                case Stop(place):
                    return self._served(self.tried[place])
                case Try(place, _, beside):
                    self._pass_over(place)
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

    async def _decided_before(self) -> Decision | None:
        """The rung that served this call in an earlier run of the job, where a policy might choose another one now."""
        if not self.scope.repeats or self.policy.routing is None:
            return None
        for place, rung in enumerate(self.rungs):
            if isinstance(rung, ModelRung) and await self.asking.served_before(rung):
                return Try(place, "it served this call in an earlier run")
        return None

    def _failed(self, reason: str) -> CallFailed:
        tried = "; ".join(f"{a.rung}: {a.reason}" for a in self.trail.attempts) or "the cascade has no rungs"
        return CallFailed(
            f"No rung of cascade '{self.cascade}' gave a valid reply ({tried}): {reason}. "
            "Add a stronger model to the cascade, or loosen its checks."
        )

    def _others(self) -> bool:
        """Whether a rung is left that was not tried."""
        return len(self.closed) < len(self.rungs)

    async def _try(self, places: tuple[int, ...], request: Request) -> None:
        """Ask rungs, side by side when there are several; the first good reply ends the others."""
        if len(places) == 1:
            await self._one(places[0], request)
            return
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._one(place, request)) for place in places]
                for next_done in asyncio.as_completed(asked):
                    if await next_done:
                        self.asking.overtaken = True
                        for task in asked:
                            task.cancel()
                        break
        except ExceptionGroup as failed:
            # Whoever calls knows nothing of rungs side by side.
            raise failed.exceptions[0] from None
        # Decided while others were still running: what they ended with counts too.
        self._decision = None

    def _pass_over(self, chosen: int) -> None:
        """Say which rungs were not asked because they are down; they are, should nothing else be left."""
        for place, rung in enumerate(self.rungs[:chosen]):
            if place not in self.closed and isinstance(rung, ModelRung) and rung.lane.breaker.health == "open":
                self.trail.skip(rung, rung.lane.down())

    async def _one(self, place: int, request: Request) -> bool:
        """Ask one rung. Returns whether its reply ends the climb."""
        rung = self.rungs[place]
        self.closed.add(place)
        self.running.add(place)
        try:
            tried = await (self._code(rung, request) if isinstance(rung, CodeRung) else self._model(rung, request))
        except BudgetExceeded as refused:
            self.refusal = self.refusal or refused
            self.trail.attempt(rung, "refused", Spend(), str(refused))
            self.ended = self.ended or self.scope.meter.on_exceed(refused) != "degrade"
            return False
        except NoTurn as why:
            self.trail.skip(rung, why)
            if why.down:
                # It went down while this call stood in line: it is there again for when nothing else is left.
                self.closed.discard(place)
            return False
        finally:
            self.running.discard(place)
        return tried is not None and tried.attempt.outcome == "accepted"

    async def _code(self, rung: CodeRung, request: Request) -> _Tried:
        # Running code again is new work, and is charged as such: its key is never used twice.
        key = f"{self.trail.next_key(rung)}|{secrets.token_hex(4)}"
        hold = await self.scope.reserve(rung.quote(), key, self.trail.labels(rung))
        assert hold is not None, "nobody else has this key"
        with hold, tracing.code_span(rung.name, number=self.trail.number) as span:
            answer, spend = await compute(rung, request, hold, key, self.scope)
            verdict = run_checks(self.checks, Candidate(request, answer.value, None)) & Verdict(True, answer.confidence)
            tried = await self._judged(rung, answer.value, "", verdict, Heard(request, None, spend))
            self.trail.note(key, tried.attempt)
            span.finish(facts(tried.attempt))
            return tried

    async def _model(self, rung: ModelRung, request: Request) -> _Tried | None:
        """Ask a model, and when its reply fails the checks, tell it why and ask again."""
        tried: _Tried | None = None
        for repair in range(self.policy.repairs + 1):
            if tried is not None:
                request = _repaired(request, tried)
            judge = functools.partial(self._heard, repair=repair > 0)
            try:
                tried = await self.asking.ask(rung, request, judge, self._live(rung), repair=repair > 0)
            except NoTurn as why:
                if tried is None:
                    raise
                self.trail.skip(rung, why)
                break
            if tried is None or tried.verdict.valid:
                break
        return tried

    async def _heard(self, rung: ModelRung, heard: Heard, *, repair: bool) -> _Tried:
        assert heard.completion is not None
        value, verdict = self.judge(heard.request, heard.completion)
        return await self._judged(rung, value, heard.completion.text, verdict, heard, repair=repair)

    def judge(self, request: Request, completion: Completion) -> tuple[Any, Verdict]:
        """A model's reply as the call's type, and what type and checks say of it."""
        value, verdict = parse_output(self.output, completion.text)
        if completion.tool_calls and self.output is str:
            # Tools that are asked for are the reply, whether or not there is text beside them.
            value, verdict = completion.text, Verdict(valid=True)
        if completion.finish_reason == "length" and self.output is not str:
            verdict = verdict & Verdict(verdict.valid, reason="the reply was cut at its token limit; answer shorter")
        if verdict.valid and self.checks:
            verdict = verdict & run_checks(self.checks, Candidate(request, value, completion))
        return value, verdict

    async def _judged(
        self, rung: Rung, value: Any, text: str, verdict: Verdict, heard: Heard, *, repair: bool = False
    ) -> _Tried:
        """Find out what a reply is worth, let the policy say whether it is served, and record the attempt."""
        place, request = self.rungs.index(rung), heard.request
        tried = _Tried(place, value, text, self._calibrated(rung, verdict), heard.completion, verdict.confidence)
        self.tried.append(tried)
        state = self._state(request, place)
        decision = self.policy.choose(state)
        if isinstance(decision, Probe) and self.tried[decision.seen] is tried:
            await self._probe(tried, request)
            decision = self.policy.choose(self._state(request, place))
        if heard.served and tried.verdict.valid:
            # Budgets and what was learned have changed since; what the rest of the job was made of has not.
            place_seen = next(seen for seen, one in enumerate(self.tried) if one is tried)
            decision = Stop(place_seen, "it served this call in an earlier run")
        self._decision, verdict = decision, tried.verdict
        stopped = isinstance(decision, Stop) and self.tried[decision.seen] is tried
        outcome: Outcome = "accepted" if stopped else "kept" if verdict.valid else "rejected"
        tried.attempt = self.trail.attempt(
            heard.by or rung,
            outcome,
            heard.spend,
            decision.reason if outcome == "kept" else verdict.reason,
            verdict.confidence,
            signal=tried.signal,
            repair=repair,
            replayed=heard.replayed,
            hedge=heard.by is not None,
        )
        self.policy.saw(state, rung.name, tried.signal, accepted=stopped)
        return tried

    def _calibrated(self, rung: Rung, verdict: Verdict) -> Verdict:
        """The same verdict, its confidence as good as it has proved to be."""
        if self.policy.calibration is None or verdict.confidence is None:
            return verdict
        chance = self.policy.calibration.probability(rung.name, self.scope.labels.call, verdict.confidence)
        return verdict if chance is None else replace(verdict, confidence=chance)

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
        """Ask for what says something of another reply: within the budget, where it may be, and never instead of it."""
        rung, reason = self.scope.services.placement.place(rung, request, self.scope.residency)
        if reason := reason or lack(rung, request, self.policy.min_output):
            self.trail.skip(rung, reason)
            return None
        try:
            # By what is asked alone: limits on the reply were fitted to the room of the moment.
            about = Request(request.messages, seed=request.seed).digest()
            tried = await self.asking.ask(rung, request, self._noted, about=about)
        except BudgetExceeded as refused:
            self.trail.attempt(rung, "refused", Spend(), str(refused))
            return None
        except NoTurn as why:
            self.trail.skip(rung, why)
            return None
        return None if tried is None else tried.text

    async def _noted(self, rung: ModelRung, heard: Heard) -> _Tried:
        """Evidence is not judged itself."""
        assert heard.completion is not None
        text = heard.completion.text
        tried = _Tried(_NOWHERE, text, text, Verdict(valid=True))
        why = "asked about another reply"
        tried.attempt = self.trail.attempt(heard.by or rung, "evidence", heard.spend, why, replayed=heard.replayed)
        return tried

    def _state(self, request: Request, judged: int | None = None) -> State:
        """What the policy is shown: every rung, and the latest reply of each that was tried.

        Rungs that still run beside the one being ``judged`` are still open: their replies may come to be better.
        """
        latest = {tried.place: tried for tried in self.tried}
        seen = tuple(Seen(place, tried.verdict, self._answer(tried), tried.signal) for place, tried in latest.items())
        self.tried = list(latest.values())
        shut = self.closed - self.running | {judged}
        rungs = tuple(
            outlook(rung, request, self.scope, self._signal(place), open=place not in shut, priced=self._priced(place))
            for place, rung in enumerate(self.rungs)
        )
        if self.policy.routing is None:
            return State(rungs, seen)
        rungs = with_return_costs(rungs, self.rungs, request, self.scope)
        features = self._features(request)
        return State(rungs, seen, self.policy.worth, self.scope.meter.seconds_left, self.scope.labels.call, features)

    def _features(self, request: Request) -> tuple[float, ...]:
        """Numbers of the question, found out once and only for a policy that looks at them."""
        if self._numbers is None:
            self._numbers = question_features(request.messages[-1].content) if self.policy.reads_questions else ()
        return self._numbers

    def _answer(self, tried: _Tried) -> str | None:
        """What tells whether two replies agree; found out only where somebody will compare them."""
        compared = self.policy.routing is not None or len(self.tried) > 1
        return answer_key(tried.output) if compared else None

    def _signal(self, place: int) -> Signal | None:
        """What could find out the confidence of a rung's reply, if it has not been asked yet."""
        return None if place in self.probed else self.policy.signal

    def _priced(self, place: int) -> bool:
        """Whether the policy will want to know what a rung costs: the fixed order asks of the next one, and seldom."""
        if place in self.closed:
            return False
        if self.policy.routing is not None:
            return True
        return bool(self.tried) and not self.policy.good_enough(self.tried[-1].verdict, last=False)

    def _live(self, rung: ModelRung) -> Listener | None:
        """Whom to tell of a reply's pieces as they come: somebody, if nothing that can follow would replace them."""
        if self.listener is None or self.output is not str or self.checks:
            return None
        decided_later = rung.logprobs or self.policy.signal is not None or self.policy.routing is not None
        return None if decided_later and rung is not self.rungs[-1] else self.listener

    def _served(self, tried: _Tried) -> Reply[Any]:
        if self.listener is not None and not self.listener.told:
            self.listener(Delta(str(tried.output)))
        answers = {id(one.attempt): self._answer(one) for one in self.tried}
        trail = [replace(a, answer=answers[id(a)]) if answers.get(id(a)) else a for a in self.trail.attempts]
        place = next(place for place, attempt in enumerate(self.trail.attempts) if attempt is tried.attempt)
        served = trail[place]
        if served.outcome != "accepted":
            served = trail[place] = replace(served, outcome="accepted")
        return Reply(
            tried.output, tried.text, served.rung, served.kind, served.confidence, tuple(trail), self.refusal,
            tried.completion, self.cascade, self.scope.labels.call, self._asked,
        )  # fmt: skip


def _repaired(request: Request, tried: _Tried) -> Request:
    """The same request with the failed reply and what was wrong with it."""
    complaint = f"That reply was not accepted: {tried.verdict.reason}. Answer again, mending exactly this."
    turns = (Message("assistant", tried.text), Message("user", complaint))
    return replace(request, messages=(*request.messages, *turns))
