"""What a policy is shown at every step of a call, and what it may answer. Imports only reply.

Amounts here are expectations, so plain floats; what is held and charged stays in integers, in ``budget``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from agentflow.cascade.reply import Verdict


@dataclass(frozen=True, slots=True)
class Expected:
    """What something is expected to use: dollars, joules, seconds."""

    usd: float = 0.0
    joules: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Expected) -> Expected:
        """Both together."""
        return Expected(self.usd + other.usd, self.joules + other.joules, self.seconds + other.seconds)

    def __sub__(self, other: Expected) -> Expected:
        """What is left of it, never below zero."""
        return Expected(
            max(self.usd - other.usd, 0.0), max(self.joules - other.joules, 0.0), max(self.seconds - other.seconds, 0.0)
        )


FREE = Expected()


@dataclass(frozen=True, slots=True)
class Worth:
    """What things are worth to whoever asked, in dollars.

    Args:
        good: one good reply.
        joule: one joule, above what the price of the call already pays for.
        second: one second of waiting.
    """

    good: float = 0.01
    joule: float = 0.0
    second: float = 0.0

    def price(self, expected: Expected) -> float:
        """Dollars that an expectation amounts to."""
        return expected.usd + self.joule * expected.joules + self.second * expected.seconds


@dataclass(frozen=True, slots=True)
class RungFacts:
    """A rung, seen before it is asked.

    Args:
        name: as reports call it.
        cost: what an attempt is expected to use, prompt cache included.
        quality: the chance, 0 to 1, that its reply is good, from feedback or a query router; None when unknown.
        signal: what its own signal costs on top (a self-check, more samples); None when it rides on the reply.
        p95_s: seconds in which 95 % of its replies come; None when unknown.
        healthy: its circuit is closed.
        open: it may be tried: it can serve the request, and the budget has not refused it.
        dearness: of its quote at the budget's shadow prices (``Meter.dearness``): 0 while the budget lasts.
        cached_tokens: of the prompt, that its prefix cache holds; what they save is already off ``cost``.
        return_cost: what it costs to come back to the rung whose cache is warm, after leaving it for this one.
    """

    name: str
    cost: Expected = FREE
    quality: float | None = None
    signal: Expected | None = None
    p95_s: float | None = None
    healthy: bool = True
    open: bool = True
    dearness: float = 0.0
    cached_tokens: int = 0
    return_cost: Expected = FREE


@dataclass(frozen=True, slots=True)
class Seen:
    """One attempt of this call, over: which rung, and what is known of its reply.

    Args:
        rung: its place in the cascade.
        verdict: what the checks said; ``confidence`` is the calibrated signal, None when it was not read.
        signal: its confidence before calibration, which learned estimators read; None: the same as ``confidence``.
        answer: the reply in a form in which equal answers are equal (``confidence.answer_key``); None: none given.
    """

    rung: int
    verdict: Verdict
    answer: str | None = None
    signal: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """All that a policy knows when it chooses.

    Args:
        rungs: the cascade, in its order: cheapest first.
        seen: attempts so far, in the order of their ends; repairs of one rung replace its earlier attempt.
        worth: of a good reply, a joule and a second.
        seconds_left: until the deadline; None without one.
        task: the call's name, by which calibration and feedback are kept.
        features: numbers known of the question before any reply, for a query router.
    """

    rungs: tuple[RungFacts, ...]
    seen: tuple[Seen, ...] = ()
    worth: Worth = field(default_factory=Worth)
    seconds_left: float | None = None
    task: str = "call"
    features: tuple[float, ...] = ()

    def untried(self) -> tuple[int, ...]:
        """Places of the rungs that may be tried: open, not seen yet, and expected to end before the deadline.

        Unhealthy rungs are left out unless no other is left.
        """
        tried = {seen.rung for seen in self.seen}
        able = [
            place
            for place, rung in enumerate(self.rungs)
            if rung.open
            and place not in tried
            and (self.seconds_left is None or rung.cost.seconds <= self.seconds_left)
        ]
        return tuple(place for place in able if self.rungs[place].healthy) or tuple(able)

    def best(self) -> int | None:
        """Which of ``seen`` to serve by its own confidence: the most confident valid one, the later of equals."""
        valid = [place for place, seen in enumerate(self.seen) if seen.verdict.valid]
        return max(valid, key=lambda place: (self.seen[place].verdict.confidence or 0.0, place), default=None)


@dataclass(frozen=True, slots=True)
class Try:
    """Ask this rung next; ``beside`` are started at the same time, and the first good reply ends the rest."""

    rung: int
    reason: str
    beside: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """Pay for the signal of a reply that is there: ``seen`` is its place in ``State.seen``."""

    seen: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Serve a reply: ``seen`` is its place in ``State.seen``."""

    seen: int
    reason: str


@dataclass(frozen=True, slots=True)
class Abstain:
    """Serve nothing: no reply is good enough to be given, and no rung is worth asking."""

    reason: str


Decision = Try | Probe | Stop | Abstain


class Routing(Protocol):
    """A policy's decision: a pure function of the state, asked before every attempt of a call."""

    def choose(self, state: State) -> Decision:
        """The next step. Never a rung that is not in ``state.untried()``."""
        ...


def served_or_abstained(state: State, reason: str) -> Stop | Abstain:
    """The end of a climb: the most confident valid reply, or nothing."""
    best = state.best()
    if best is None:
        return Abstain("no valid reply, and no rung is left to try")
    return Stop(best, reason)
