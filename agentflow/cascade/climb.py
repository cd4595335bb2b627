"""One call on its way up the rungs: which rung next, whether its reply is good enough, what is served.

Every attempt is held and recorded before it leaves and settled after it. May import everything on the floors below.
Next: ``sending`` and ``computing`` (one attempt), ``scope`` (how it gets its room), ``lane`` (how it gets its turn),
``policy``; ``cascade`` climbs.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentflow.budget.currency import MICRO
from agentflow.budget.ledger import Entry, Labels
from agentflow.budget.money import NANO
from agentflow.budget.spend import Spend
from agentflow.cascade.checks import Candidate, Check, output_schema, parse_output, run_checks
from agentflow.cascade.computing import compute
from agentflow.cascade.hedging import Race
from agentflow.cascade.lane import NoTurn
from agentflow.cascade.outlook import outlook
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Attempt, Outcome, Reply, Verdict
from agentflow.cascade.routing.state import Abstain, Decision, Seen, State, Stop, Try
from agentflow.cascade.rung import DELIVERY_S, LEAST_S, CodeRung, ModelRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.sending import SendFailed, Sending, abandon, send
from agentflow.errors import AgentflowError, BudgetExceeded, CallFailed
from agentflow.messages import Completion, Delta, Message, Request
from agentflow.telemetry import tracing

_HEDGE: Final = "|hedge"


@dataclass(slots=True)
class _Tried:
    """A reply of the rung at ``place``, with its verdict; ``output`` is None when it did not parse."""

    place: int
    output: Any
    text: str
    verdict: Verdict
    answer: str | None = None
    completion: Completion | None = None
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
        self.refusal: BudgetExceeded | None = None
        self.ended = False
        self.ends_at: float | None = None
        self._decision: Decision | None = None

    async def run(self, request: Request) -> Reply[Any]:
        """Climb until a reply is good enough, or nothing is left to try."""
        if request.timeout_s is not None:
            self.ends_at = asyncio.get_running_loop().time() + request.timeout_s
        while not self.ended:
            # What was decided as the last attempt was judged still holds, unless something has changed since.
            decision, self._decision = self._decision or self.policy.choose(self._state(request)), None
            match decision:
                case Stop(place):
                    return self._served(self.tried[place])
                case Try(place, _, beside):
                    self._pass_over(place)
                    await self._try((place, *beside), request)
                case Abstain(reason):
                    raise self.refusal or self._failed(reason)
                case _:
                    raise AssertionError(f"nothing here can do {decision}")
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

    def _pass_over(self, chosen: int) -> None:
        """Say which rungs were not asked because they are down; they are, should nothing else be left."""
        for place, rung in enumerate(self.rungs[:chosen]):
            if place not in self.closed and isinstance(rung, ModelRung) and rung.lane.breaker.health == "open":
                self._skip(rung, rung.lane.down())

    def _skip(self, rung: Rung, why: NoTurn) -> None:
        if not any(a.outcome == "skipped" and a.rung == rung.name for a in self.trail):
            self._record(self._attempt(rung, "skipped", Spend(), reason=str(why)))

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
        except NoTurn as why:
            self._skip(rung, why)
            if why.down:
                # It went down while this call stood in line: it is there again for when nothing else is left.
                self.closed.discard(place)
            return False
        finally:
            self.running.discard(place)
        return tried is not None and tried.attempt.outcome == "accepted"

    def _state(self, request: Request, judged: int | None = None) -> State:
        """What the policy is shown: every rung, and the latest reply of each that was tried.

        Rungs that still run beside the one being ``judged`` are still open: their replies may come to be better.
        """
        latest = {tried.place: tried for tried in self.tried}
        seen = tuple(Seen(place, tried.verdict, tried.answer) for place, tried in latest.items())
        self.tried = list(latest.values())
        shut = self.closed - self.running | {judged}
        rungs = tuple(
            outlook(rung, request, self.scope, open=place not in shut, priced=self._priced(place))
            for place, rung in enumerate(self.rungs)
        )
        return State(rungs, seen, task=self.scope.labels.call)

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
            try:
                tried = await self._ask(rung, request, repair=repair > 0)
            except NoTurn as why:
                if tried is None:
                    raise
                self._skip(rung, why)
                break
            if tried is None or tried.verdict.valid:
                break
        return tried

    async def _ask(self, rung: ModelRung, request: Request, *, repair: bool) -> _Tried | None:
        """One attempt: replay it, or hold, send, settle. None when the backend gave no reply."""
        while True:
            key = self._key(rung)
            while (done := await self._done(rung, key)) is not None:
                if done.completion is not None:
                    return self._again(rung, request, done, repair=repair)
                known = done.outcome == "failed"
                reason = "it failed in an earlier run" if known else "an earlier run was cut off during it"
                self._record(self._attempt(rung, "failed", Spend(), reason=reason, repair=repair, replayed=True))
                if known:
                    return None
                key = self._key(rung)
            sending = await self.scope.asking(functools.partial(self._reserve, rung, request, key))
            if sending is not None:
                break
        if rung.lane.hedges is None:
            return await self._send(rung, sending, self._live(rung), repair=repair)
        return await self._hedged(rung, request, sending, repair=repair)

    async def _done(self, rung: ModelRung, key: str) -> Entry | None:
        """What an earlier run of the job recorded of this attempt; None when it may leave."""
        entry = await self.scope.ledger.find(key, replay=True)
        if entry is None or entry.state in ("held", "released"):
            return None
        if entry.completion is None and rung.lane.hedges is not None:
            hedge = await self.scope.ledger.find(_hedge_of(key), replay=True)
            if hedge is not None and hedge.completion is not None:
                return hedge
        return entry

    def _again(self, rung: ModelRung, request: Request, done: Entry, *, repair: bool) -> _Tried:
        """The reply that an earlier run was given, which may have been its hedge's."""
        assert done.completion is not None
        by = None
        if done.key.endswith(_HEDGE):
            why = "another attempt replied first"
            self._record(self._attempt(rung, "cancelled", Spend(), reason=why, repair=repair, replayed=True))
            by = rung.hedge_with or rung
        return self._judge_completion(rung, request, done.completion, Spend(), repair=repair, replayed=True, by=by)

    async def _reserve(self, rung: ModelRung, request: Request, key: str) -> Sending | None:
        """Wait for a turn, then reserve what the attempt may cost: who stands in line holds no budget meanwhile.

        Returns:
            The attempt, ready to leave; None when it is recorded already.

        Raises:
            NoTurn: it cannot be sent, or could not end, in time.
            BudgetExceeded, LedgerError: as the scope says.
        """
        left_s = self._left_s()
        least_s = self._least_s(rung, request, left_s)
        wait_s = rung.timeout_s if left_s is None else left_s - least_s
        if left_s is not None and any(place not in self.closed for place in range(len(self.rungs))):
            # Another rung may be asked, and needs time of its own.
            wait_s /= 2.0
        down = rung.lane.breaker.health == "open"
        # A policy asks for a rung that is down when nothing else is left.
        turn = await rung.lane.turn(self._tokens(rung, request), wait_s, anyway=down)
        try:
            labels = self._labels(rung)
            timed = request if self.ends_at is None else replace(request, timeout_s=self._until_deadline_s())
            reserved = await self.scope.reserve_reply(rung, timed, key, self.policy.min_output, labels)
        except BaseException:
            turn.end()
            raise
        if reserved is None:
            turn.end()
            return None
        return Sending(rung, *reserved, key, turn)

    def _until_deadline_s(self) -> float | None:
        return None if self.ends_at is None else max(self.ends_at - asyncio.get_running_loop().time(), 0.0)

    def _left_s(self) -> float | None:
        """Seconds until the call's deadline or the end of a budget's seconds, whichever is sooner."""
        room_s, left_s = self.scope.meter.room(final=self.scope.final).seconds, self._until_deadline_s()
        if room_s is None:
            return left_s
        room_s = max(room_s - DELIVERY_S, 0.0)
        return room_s if left_s is None else min(room_s, left_s)

    def _least_s(self, rung: ModelRung, request: Request, left_s: float | None) -> float:
        """What the attempt needs at least.

        Raises:
            NoTurn: that is more than is left.
        """
        if left_s is None:
            return LEAST_S
        usual_s = rung.lane.expected_s(request.max_output_tokens or rung.default_output) or 0.0
        least_s = max(usual_s, LEAST_S)
        # A budget's own seconds are refused by its hold, which says so better.
        if left_s < least_s and (usual_s > LEAST_S or self.ends_at is not None):
            raise NoTurn(f"it takes about {least_s:.2g} s, and {left_s:.2g} s are left")
        return min(least_s, left_s)

    def _tokens(self, rung: ModelRung, request: Request) -> int:
        """What the attempt may use, where a rate of tokens is kept."""
        if not rung.lane.weighs_tokens:
            return 0
        most = request.max_output_tokens or rung.default_output
        expected = self.scope.admission.expected(rung.name, self.scope.labels.call)
        return rung.counter.prompt(request) + (most if expected is None else min(expected, most))

    async def _hedged(self, rung: ModelRung, asked: Request, first: Sending, *, repair: bool) -> _Tried | None:
        """Send an attempt, and a second one when its first token is late; the first to reply is judged."""
        hedges = rung.lane.hedges
        assert hedges is not None
        hedges.called()
        race: Race[_Tried] = Race(self._live(rung))
        prompt = first.hold.quote.tokens - (first.request.max_output_tokens or 0)
        delay_s = hedges.delay_s if prompt <= hedges.limits.longest_prompt else None
        other = rung.hedge_with or rung

        async def begin(tell: Callable[[Delta], None]) -> _Tried | None:
            return await self._send(rung, first, tell, repair=repair, lost=lambda: race.winner == 1)

        async def hedge(tell: Callable[[Delta], None]) -> _Tried | None:
            second = None
            try:
                second = await self._reserve_hedge(other, asked, first)
            finally:
                if second is None:
                    hedges.put_back()
            if second is None:
                return None
            return await self._send(rung, second, tell, repair=repair, lost=lambda: race.winner == 0)

        def allowed() -> bool:
            return not (rung.lane.saturated or other.lane.saturated) and hedges.take()

        tried = await race.run(begin, hedge, delay_s, allowed)
        hedges.won += race.winner == 1 and tried is not None
        return tried

    async def _reserve_hedge(self, rung: ModelRung, asked: Request, first: Sending) -> Sending | None:
        """A second attempt beside ``first``, if it can leave at once, and with as long a reply; else None."""
        try:
            turn = await rung.lane.turn(self._tokens(rung, asked), 0.0)
        except NoTurn:
            return None
        key = _hedge_of(first.key)
        try:
            timed = replace(
                asked, timeout_s=self._until_deadline_s(), max_output_tokens=first.request.max_output_tokens
            )
            reserved = await self.scope.reserve_reply(rung, timed, key, self.policy.min_output, self._labels(rung))
        except AgentflowError:
            # A hedge is never worth failing for.
            reserved = None
        except BaseException:
            turn.end()
            raise
        if reserved is None:
            turn.end()
            return None
        second = Sending(rung, *reserved, key, turn, hedge=True)
        if (second.request.max_output_tokens or 0) < (first.request.max_output_tokens or 0):
            await abandon(second, self.scope)
            return None
        return second

    async def _send(
        self,
        rung: ModelRung,
        sending: Sending,
        tell: Callable[[Delta], None] | None,
        *,
        repair: bool,
        lost: Callable[[], bool] = lambda: False,
    ) -> _Tried | None:
        """Send an attempt for the rung, and judge its reply. None when the backend gave none.

        Args:
            rung: whose place it has in the cascade.
            sending: the attempt; a hedge may ask another rung.
            tell: told of the reply's pieces.
            repair: the model was told what was wrong with its last reply.
            lost: whether another attempt has replied first.
        """
        by, request, quote = sending.rung, sending.request, sending.hold.quote
        model = tracing.ModelFacts(by.backend.provider, by.model, by.backend.in_process, by.name)
        with tracing.chat_span(model, request, number=len(self.trail) + 1) as span:
            span.held(quote.tokens, quote.nano_usd / NANO, quote.microjoules / MICRO)
            try:
                completion = await send(sending, self.scope, tell)
            except (SendFailed, asyncio.CancelledError) as ended:
                failed = isinstance(ended, SendFailed)
                reason = (
                    str(ended) if failed else "another attempt replied first" if lost() else "the call was given up"
                )
                attempt = self._attempt(
                    by, "failed" if failed else "cancelled", sending.spend, reason, repair=repair, hedge=sending.hedge
                )
                self._record(attempt)
                self._note(sending.key, attempt)
                span.fail(ended.error if failed else ended, _facts(attempt))
                if not failed:
                    raise
                if self.told and not lost():
                    # What was read already cannot be taken back, and another rung would begin anew.
                    raise ended.error from ended
                return None
            self.scope.admission.saw(by.name, self.scope.labels.call, completion.usage.output)
            asked = by if sending.hedge else None
            tried = self._judge_completion(rung, request, completion, sending.spend, repair=repair, by=asked)
            self._note(sending.key, tried.attempt)
            span.finish(_facts(tried.attempt), completion)
            return tried

    def _judge_completion(
        self,
        rung: ModelRung,
        request: Request,
        completion: Completion,
        spend: Spend,
        *,
        repair: bool,
        replayed: bool = False,
        by: ModelRung | None = None,
    ) -> _Tried:
        """The reply's place and verdict; ``by`` is whom its hedge asked, where it is one's."""
        value, verdict = parse_output(self.output, completion.text)
        if completion.tool_calls and self.output is str:
            # Tools that are asked for are the reply, whether or not there is text beside them.
            value, verdict = completion.text, Verdict(valid=True)
        if completion.finish_reason == "length" and self.output is not str:
            verdict = verdict & Verdict(verdict.valid, reason="the reply was cut at its token limit; answer shorter")
        if verdict.valid:
            verdict = verdict & run_checks(self.checks, Candidate(request, value, completion))
        return self._judged(
            rung, request, value, completion.text, verdict, spend, completion, repair=repair, replayed=replayed, by=by
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
        by: ModelRung | None = None,
    ) -> _Tried:
        place = self.rungs.index(rung)
        tried = _Tried(place, value, text, verdict, completion=completion)
        self.tried.append(tried)
        decision = self._decision = self.policy.choose(self._state(request, place))
        stopped = isinstance(decision, Stop) and self.tried[decision.seen] is tried
        outcome: Outcome = "accepted" if stopped else "kept" if verdict.valid else "rejected"
        reason = decision.reason if outcome == "kept" else verdict.reason
        tried.attempt = self._attempt(
            by or rung,
            outcome,
            spend,
            reason,
            verdict.confidence,
            repair=repair,
            replayed=replayed,
            hedge=by is not None,
        )
        self._record(tried.attempt)
        return tried

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
        hedge: bool = False,
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
            hedge=hedge,
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
        before = sum(a.rung == rung.name and a.outcome != "skipped" and not a.hedge for a in self.trail)
        return f"{self.scope.key}|{before + 1}|{rung.name}"


def _hedge_of(key: str) -> str:
    """The ledger's key of the hedge beside an attempt."""
    return key + _HEDGE


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
