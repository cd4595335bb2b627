"""A model rung asked once for a call: replayed, or given a turn and room, sent, hedged when late, and judged.

Every attempt is held and recorded before it leaves and settled after it. May import everything on the floors below.
Next: ``sending`` (from hold to settle), ``lane`` (turns), ``hedging``, ``scope`` (room); ``climb`` asks with it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, Protocol, TypeVar

from agentflow.budget.currency import MICRO
from agentflow.budget.ledger import Entry
from agentflow.budget.money import NANO
from agentflow.budget.spend import Spend
from agentflow.cascade.hedging import Race
from agentflow.cascade.lane import NoTurn
from agentflow.cascade.reply import Attempt, Outcome
from agentflow.cascade.rung import DELIVERY_S, LEAST_S, ModelRung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.sending import SendFailed, Sending, abandon, send
from agentflow.cascade.trail import Trail, facts
from agentflow.errors import AgentflowError
from agentflow.messages import Completion, Delta, Request
from agentflow.telemetry import tracing

_HEDGE: Final = "|hedge"
_OVERTAKEN: Final = "another attempt replied first"
Tell = Callable[[Delta], None]


class Judged(Protocol):
    """A reply with its verdict."""

    attempt: Attempt


Reply = TypeVar("Reply", bound=Judged)
ReplyGiven = TypeVar("ReplyGiven", bound=Judged, covariant=True)


@dataclass(frozen=True, slots=True)
class Heard:
    """A reply that came.

    ``completion`` is None when code gave it; ``by`` is whom a hedge asked, where it is one's; ``served`` says that an
    earlier run of the job was given it, and served it.
    """

    request: Request
    completion: Completion | None
    spend: Spend
    replayed: bool = False
    by: ModelRung | None = None
    served: bool = False


class Judge(Protocol[ReplyGiven]):
    """Says what a reply is worth, and records the attempt."""

    async def __call__(self, rung: ModelRung, heard: Heard) -> ReplyGiven:
        """Judge the reply that came for a rung."""
        ...


class Listener:
    """Who reads a reply as it comes, and whether anything was read yet."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.told = False

    def __call__(self, delta: Delta) -> None:
        """Pass a piece on."""
        self.told = True
        self._tell(delta)


class Asking(Generic[Reply]):
    """What asks models for one call.

    Args:
        scope: where its costs go.
        trail: where its attempts are recorded.
        min_output: tokens below which a reply is not worth asking for.
        ends_at: when the call must be over, on the event loop's clock; None without a deadline.
        others: whether another rung may still be asked, and so needs time of its own.
        prices_warmth: whether the policy will want to know which prompts the rungs have read.
    """

    def __init__(
        self,
        scope: CallScope,
        trail: Trail,
        min_output: int,
        ends_at: float | None,
        others: Callable[[], bool],
        *,
        prices_warmth: bool = False,
    ) -> None:
        self._scope = scope
        self._trail = trail
        self._min_output = min_output
        self._ends_at = ends_at
        self._others = others
        self._prices_warmth = prices_warmth
        self.overtaken = False
        """Whether the call has its reply, and what still runs beside it is cancelled."""

    async def ask(
        self,
        rung: ModelRung,
        request: Request,
        judge: Judge[Reply],
        listener: Listener | None = None,
        *,
        about: str = "",
        repair: bool = False,
    ) -> Reply | None:
        """One attempt. None when the backend gave no reply.

        Args:
            rung: the model.
            request: what it is asked.
            judge: of its reply.
            listener: hears the reply as it comes.
            about: what it is evidence about, as a name that a repeated run gives again.
            repair: the model was told what was wrong with its last reply.

        Raises:
            NoTurn: it cannot be sent, or could not end, in time.
            BudgetExceeded: there is no room for it.
            LedgerError: it cannot be recorded.
            BackendError: it failed after ``listener`` had heard some of it.
        """
        key = self._trail.next_key(rung, about)
        recorded = self._scope.repeats
        while True:
            while recorded and (done := await self._done(rung, key)) is not None:
                if done.completion is not None:
                    return await self._again(rung, request, done, judge, repair=repair)
                known = done.outcome == "failed"
                reason = "it failed in an earlier run" if known else "an earlier run was cut off during it"
                self._trail.attempt(rung, "failed", Spend(), reason, repair=repair, replayed=True)
                if known:
                    return None
                key = self._trail.next_key(rung, about)
            try:
                sending = await self._scope.asking(functools.partial(self._reserve, rung, request, key))
            except NoTurn:
                # It was not asked: whatever is asked next has this key, in a repeated run too.
                self._trail.unused(rung, about)
                raise
            if sending is not None:
                break
            recorded = True
        if rung.lane.hedges is None:
            return await self._send(rung, sending, judge, listener, listener, repair=repair)
        return await self._hedged(rung, request, sending, judge, listener, repair=repair)

    async def served_before(self, rung: ModelRung) -> bool:
        """Whether an earlier run of the job was given a reply of this rung, and served it."""
        number = 1
        while (entry := await self._scope.ledger.find(self._trail.key(rung, number))) is not None:
            if entry.completion is None and rung.lane.hedges is not None:
                entry = await self._scope.ledger.find(entry.key + _HEDGE) or entry
            if entry.outcome == "accepted":
                return True
            number += 1
        return False

    async def _done(self, rung: ModelRung, key: str) -> Entry | None:
        """What an earlier run of the job recorded of this attempt; None when it may leave."""
        entry = await self._scope.ledger.find(key, replay=True)
        if entry is None or entry.state == "held":
            return None
        if entry.completion is None and rung.lane.hedges is not None:
            hedge = await self._scope.ledger.find(key + _HEDGE, replay=True)
            if hedge is not None and hedge.completion is not None:
                return hedge
        return None if entry.state == "released" else entry

    async def _again(
        self, rung: ModelRung, request: Request, done: Entry, judge: Judge[Reply], *, repair: bool
    ) -> Reply:
        """The reply that an earlier run was given, which may have been its hedge's."""
        assert done.completion is not None
        by = None
        if done.key.endswith(_HEDGE):
            self._trail.attempt(rung, "cancelled", Spend(), _OVERTAKEN, repair=repair, replayed=True)
            by = rung.hedge_with or rung
        served = done.outcome == "accepted"
        return await judge(rung, Heard(request, done.completion, Spend(), replayed=True, by=by, served=served))

    async def _reserve(self, rung: ModelRung, request: Request, key: str) -> Sending | None:
        """Wait for a turn, then reserve what the attempt may cost: who stands in line holds no budget meanwhile.

        Returns:
            The attempt, ready to leave; None when it is recorded already.
        """
        left_s = self._left_s()
        least_s = self._least_s(rung, request, left_s)
        wait_s = rung.timeout_s if left_s is None else left_s - least_s
        if left_s is not None and self._others():
            # Another rung may be asked, and needs time of its own.
            wait_s /= 2.0
        down = rung.lane.breaker.health == "open"
        # A policy asks for a rung that is down when nothing else is left.
        turn = await rung.lane.turn(self._tokens(rung, request), wait_s, anyway=down)
        try:
            labels = self._trail.labels(rung)
            timed = request if self._ends_at is None else replace(request, timeout_s=self._until_deadline_s())
            reserved = await self._scope.reserve_reply(rung, timed, key, self._min_output, labels)
        except BaseException:
            turn.end()
            raise
        if reserved is None:
            turn.end()
            return None
        return Sending(rung, *reserved, key, turn)

    def _until_deadline_s(self) -> float | None:
        return None if self._ends_at is None else max(self._ends_at - asyncio.get_running_loop().time(), 0.0)

    def _left_s(self) -> float | None:
        """Seconds until the call's deadline or the end of a budget's seconds, whichever is sooner."""
        room_s, left_s = self._scope.meter.seconds_left, self._until_deadline_s()
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
        if left_s < least_s and (usual_s > LEAST_S or self._ends_at is not None):
            raise NoTurn(f"it takes about {least_s:.2g} s, and {left_s:.2g} s are left")
        return min(least_s, left_s)

    def _tokens(self, rung: ModelRung, request: Request) -> int:
        """What the attempt may use, where a rate of tokens is kept."""
        if not rung.lane.weighs_tokens:
            return 0
        most = request.max_output_tokens or rung.default_output
        expected = self._scope.admission.expected(rung.name, self._scope.labels.call)
        return rung.counter.prompt(request) + (most if expected is None else min(expected, most))

    async def _hedged(
        self,
        rung: ModelRung,
        asked: Request,
        first: Sending,
        judge: Judge[Reply],
        listener: Listener | None,
        *,
        repair: bool,
    ) -> Reply | None:
        """Send an attempt, and a second one when its first token is late; the first to reply is judged."""
        hedges = rung.lane.hedges
        assert hedges is not None
        hedges.called()
        race: Race[Reply] = Race(listener)
        prompt = first.hold.quote.tokens - (first.request.max_output_tokens or 0)
        delay_s = hedges.delay_s if prompt <= hedges.limits.longest_prompt else None
        other = rung.hedge_with or rung

        async def begin(tell: Tell) -> Reply | None:
            return await self._send(rung, first, judge, tell, listener, repair=repair, lost=lambda: race.winner == 1)

        async def hedge(tell: Tell) -> Reply | None:
            second = None
            try:
                second = await self._reserve_hedge(other, asked, first)
            finally:
                if second is None:
                    hedges.put_back()
            if second is None:
                return None
            return await self._send(rung, second, judge, tell, listener, repair=repair, lost=lambda: race.winner == 0)

        def allowed() -> bool:
            return not (rung.lane.saturated or other.lane.saturated) and hedges.take()

        judged = await race.run(begin, hedge, delay_s, allowed)
        hedges.won += race.winner == 1 and judged is not None
        return judged

    async def _reserve_hedge(self, rung: ModelRung, asked: Request, first: Sending) -> Sending | None:
        """A second attempt beside ``first``, if it can leave at once, and with as long a reply; else None."""
        try:
            turn = await rung.lane.turn(self._tokens(rung, asked), 0.0)
        except NoTurn:
            return None
        key = first.key + _HEDGE
        try:
            timed = replace(
                asked, timeout_s=self._until_deadline_s(), max_output_tokens=first.request.max_output_tokens
            )
            labels = self._trail.labels(rung)
            reserved = await self._scope.reserve_reply(rung, timed, key, self._min_output, labels)
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
            await abandon(second, self._scope)
            return None
        return second

    async def _send(
        self,
        rung: ModelRung,
        sending: Sending,
        judge: Judge[Reply],
        tell: Tell | None,
        listener: Listener | None,
        *,
        repair: bool,
        lost: Callable[[], bool] = lambda: False,
    ) -> Reply | None:
        """Send an attempt for the rung, and judge its reply. None when the backend gave none.

        Args:
            rung: whose place it has in the cascade.
            sending: the attempt; a hedge may ask another rung.
            judge: of the reply.
            tell: told of the reply's pieces.
            listener: who hears the call's reply in the end.
            repair: the model was told what was wrong with its last reply.
            lost: whether another attempt has replied first.
        """
        by, request, quote = sending.rung, sending.request, sending.hold.quote
        model = tracing.ModelFacts(by.backend.provider, by.model, by.backend.in_process, by.name)
        with tracing.chat_span(model, request, number=self._trail.number) as span:
            span.held(quote.tokens, quote.nano_usd / NANO, quote.microjoules / MICRO)
            try:
                completion = await send(sending, self._scope, tell)
            except SendFailed as failed:
                attempt = self._unanswered(sending, "failed", str(failed), repair=repair)
                span.fail(failed.error, facts(attempt))
                if listener is not None and listener.told and not lost():
                    # What was read already cannot be taken back, and another rung would begin anew.
                    raise failed.error from failed
                return None
            except asyncio.CancelledError as cancelled:
                reason = _OVERTAKEN if lost() or self.overtaken else "the call was given up"
                span.fail(cancelled, facts(self._unanswered(sending, "cancelled", reason, repair=repair)))
                raise
            self._scope.admission.saw(by.name, self._scope.labels.call, completion.usage.output)
            if self._prices_warmth:
                self._scope.warmth.saw(by, request, completion.usage)
            hedged_by = by if sending.hedge else None
            judged = await judge(rung, Heard(request, completion, sending.spend, by=hedged_by))
            self._trail.note(sending.key, judged.attempt)
            span.finish(facts(judged.attempt), completion)
            return judged

    def _unanswered(self, sending: Sending, outcome: Outcome, reason: str, *, repair: bool) -> Attempt:
        attempt = self._trail.attempt(sending.rung, outcome, sending.spend, reason, repair=repair, hedge=sending.hedge)
        self._trail.note(sending.key, attempt)
        return attempt
