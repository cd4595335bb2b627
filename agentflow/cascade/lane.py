"""Lane: what this process knows of one rung while it runs, shared by all its calls. Imports the parts it is made of.

How quick it is (``quantiles``), whether it is up (``health``), how many calls it takes at once (``concurrency``) and in
a minute (``rates``), when a second attempt may leave (``hedging``). An attempt takes a turn, and says how it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from agentflow.cascade.concurrency import ConcurrencyLimits, Gradient, Slots
from agentflow.cascade.health import Breaker, BreakerLimits, Health
from agentflow.cascade.hedging import HedgeLimits, Hedges
from agentflow.cascade.quantiles import Quantiles
from agentflow.cascade.rates import RateFull, RateLimits, Rates
from agentflow.errors import BackendError, BackendTimeout, BackendUnavailable, RequestRejected
from agentflow.messages import Completion, Delta

# Samples after which what was seen weighs half.
_WINDOW: Final = 500
# How many replies, and how fresh, it takes to say that a call would come too late.
_ENOUGH, _FRESH_S = 10, 60.0


class NoTurn(Exception):
    """A rung cannot be asked now; the text says why, and for how long. ``down``: its circuit is open."""

    def __init__(self, reason: str, *, down: bool = False) -> None:
        super().__init__(reason)
        self.down = down


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """What a rung's calls keep to: without ``concurrency`` and ``rates`` nothing waits; None of ``hedge`` is off."""

    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    concurrency: ConcurrencyLimits | None = None
    rates: RateLimits = field(default_factory=RateLimits)
    hedge: HedgeLimits | None = None


@dataclass(frozen=True, slots=True)
class LaneState:
    """A snapshot of a lane. Seconds; None is unknown, or not limited.

    ``in_flight`` attempts run, ``waiting`` wait for their turn, ``limit`` may run at once. ``retry_s`` is when an open
    circuit lets a probe through.
    """

    health: Health
    retry_s: float
    in_flight: int
    waiting: int
    limit: int | None
    replies: int
    failures: int
    hedges: int
    hedges_won: int
    hedge_after_s: float | None
    p50_s: float | None
    p95_s: float | None
    first_token_p95_s: float | None
    between_tokens_p95_s: float | None


class Lane:
    """The live state of one rung.

    Args:
        limits: what its calls keep to.
        clock: seconds, monotonic, as the event loop's.

    Example:
        >>> lane = Lane()
        >>> with await lane.turn() as turn:                     # doctest: +SKIP
        ...     turn.leaves()
        ...     turn.replied(await backend.complete(model, request))
    """

    def __init__(self, limits: LaneLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        limits = limits or LaneLimits()
        self._clock = clock
        self.total = Quantiles(_WINDOW)
        """Seconds of whole replies."""
        self.first_token = Quantiles(_WINDOW)
        """Seconds until their first token; of the whole reply where it did not stream."""
        self.between_tokens = Quantiles(_WINDOW)
        """Seconds from one token to the next, the mean of each reply."""
        self.breaker = Breaker(limits.breaker, clock)
        self.slots = None if limits.concurrency is None else Slots(Gradient(limits.concurrency))
        self.rates = Rates(limits.rates, clock) if limits.rates.limited else None
        self.hedges = None if limits.hedge is None else Hedges(limits.hedge)
        self.weighs_tokens = limits.rates.tokens is not None
        """Whether a turn must say how many tokens it may use."""
        self._in_flight = self._replies = self._failures = 0
        self._last_s: float | None = None

    async def turn(self, tokens: int = 0, timeout_s: float = 60.0, *, anyway: bool = False) -> Turn:
        """Wait for a turn: the circuit, then the rates, then a slot.

        Args:
            tokens: that the attempt may use, where ``weighs_tokens``.
            timeout_s: how long it may wait.
            anyway: nothing else is left to try: an open circuit is probed.

        Raises:
            NoTurn: none comes in time. Nothing is kept.
        """
        if self.breaker.health == "open" and not anyway:
            raise self.down()
        until = self._clock() + timeout_s
        if self.rates is not None:
            try:
                await self.rates.take(tokens, timeout_s)
            except RateFull as full:
                raise NoTurn(
                    f"its limit of requests or tokens a minute is used up: {full}, and {timeout_s:.1f} s can be waited"
                ) from None
        try:
            if self.slots is not None:
                await self.slots.take(max(until - self._clock(), 0.0))
        except BaseException as error:
            self._return(tokens)
            if isinstance(error, TimeoutError):
                raise NoTurn(
                    f"no slot came free within {timeout_s:.1f} s: {self._in_flight} calls run, "
                    f"{self.slots.waiting if self.slots else 0} wait"
                ) from None
            raise
        # It may have failed others while this one stood in line.
        if not self.breaker.admit(anyway=anyway):
            self._return(tokens)
            if self.slots is not None:
                self.slots.give_back()
            raise self.down()
        self._in_flight += 1
        return Turn(self, tokens)

    @property
    def saturated(self) -> bool:
        """Whether a call that came now would have to wait, or would find it failing."""
        return (
            self.breaker.health != "closed"
            or (self.slots is not None and self.slots.full)
            or (self.rates is not None and self.rates.waiting > 0)
        )

    def expected_s(self, output: int) -> float | None:
        """Seconds that a reply of up to ``output`` tokens takes, half of the time; None when that is not known now."""
        if self._last_s is None or self._replies < _ENOUGH or self._clock() - self._last_s > _FRESH_S:
            return None
        total, first, between = (it.quantile(0.5) for it in (self.total, self.first_token, self.between_tokens))
        if total is None or first is None:
            return total
        return total if between is None else min(total, first + output * between)

    def down(self) -> NoTurn:
        """Why nobody is sent while the circuit is open."""
        return NoTurn(
            f"its circuit is open after repeated failures; it is probed in {self.breaker.retry_s:.1f} s", down=True
        )

    def state(self) -> LaneState:
        """How it stands."""
        hedges, slots = self.hedges, self.slots
        return LaneState(
            health=self.breaker.health,
            retry_s=self.breaker.retry_s,
            in_flight=self._in_flight,
            waiting=(slots.waiting if slots else 0) + (self.rates.waiting if self.rates else 0),
            limit=slots.law.limit if slots else None,
            replies=self._replies,
            failures=self._failures,
            hedges=hedges.made if hedges else 0,
            hedges_won=hedges.won if hedges else 0,
            hedge_after_s=hedges.delay_s if hedges else None,
            p50_s=self.total.quantile(0.5),
            p95_s=self.total.quantile(0.95),
            first_token_p95_s=self.first_token.quantile(0.95),
            between_tokens_p95_s=self.between_tokens.quantile(0.95),
        )

    def _return(self, tokens: int) -> None:
        if self.rates is not None:
            self.rates.give_back(tokens)

    def _ended(self) -> None:
        self._in_flight -= 1
        if self.slots is not None:
            self.slots.give_back()

    def _saw(self, completion: Completion) -> None:
        timings, output = completion.timings, completion.usage.output
        first_s = timings.total_s if timings.first_token_s is None else timings.first_token_s
        self._replies += 1
        self._last_s = self._clock()
        self.total.add(timings.total_s)
        self.first_token.add(first_s)
        if timings.first_token_s is not None and output > 1:
            self.between_tokens.add((timings.total_s - first_s) / (output - 1))
        if self.slots is not None:
            self.slots.law.saw(first_s, self.slots.in_flight)
        if self.hedges is not None:
            self.hedges.saw(first_s)


class Turn:
    """One attempt's place in a lane: a slot, booked tokens, the breaker's leave. As a context it gives all back.

    ``leaves`` is told when the request is sent; then ``replied`` or ``failed``, or neither when it is cancelled.
    """

    __slots__ = ("_began", "_lane", "_left_s", "_over", "_probe", "_tokens")

    def __init__(self, lane: Lane, tokens: int) -> None:
        self._lane = lane
        self._tokens = tokens
        self._probe = lane.breaker.probing
        self._left_s: float | None = None
        self._began = False
        self._over = False

    def leaves(self) -> None:
        """The request is sent now."""
        self._left_s = self._lane._clock()

    def watched(self, tell: Callable[[Delta], None]) -> Callable[[Delta], None]:
        """``tell``, with an eye on when the reply begins."""

        def telling(piece: Delta) -> None:
            self._began = True
            tell(piece)

        return telling

    def replied(self, completion: Completion) -> None:
        """A whole reply came."""
        lane = self._lane
        lane.breaker.succeeded()
        lane._saw(completion)
        if lane.rates is not None:
            lane.rates.used(self._tokens, completion.usage.total)
        self._end()

    def failed(self, error: BackendError, *, cut: bool = False) -> None:
        """No reply came.

        Args:
            error: why.
            cut: it was given less time than the rung's own, so that it may be as well as ever.
        """
        lane, late = self._lane, isinstance(error, BackendTimeout)
        lane._failures += 1
        if lane.slots is not None and not cut and (late or isinstance(error, BackendUnavailable)):
            lane.slots.law.backed_off()
        if isinstance(error, RequestRejected) or (cut and late):
            lane.breaker.dropped(probe=self._probe)
        else:
            rest_s = error.retry_after_s if isinstance(error, BackendUnavailable) else None
            lane.breaker.failed(rest_s, probe=self._probe)
        if lane.rates is not None and not error.sent:
            lane.rates.used(self._tokens, 0)
        if late:
            self._late()
        self._end()

    def end(self) -> None:
        """Give back what is still kept; doing it twice changes nothing."""
        if self._over:
            return
        self._lane.breaker.dropped(probe=self._probe)
        if self._left_s is None:
            self._lane._return(self._tokens)
        else:
            self._late()
        self._end()

    def _late(self) -> None:
        """It ended before its first token: the token would have come later than this, which is known if it is late."""
        hedges = self._lane.hedges
        if hedges is None or self._began or self._left_s is None or hedges.delay_s is None:
            return
        waited_s = self._lane._clock() - self._left_s
        if waited_s >= hedges.delay_s:
            hedges.saw(waited_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _end(self) -> None:
        self._over = True
        self._lane._ended()
