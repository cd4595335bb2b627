"""Expected utility: stop, or take the step whose expected gain in quality is worth the most above its price.

The estimates come from an ``Estimator`` (``learned``). With none, or when it knows nothing of this task, the
fixed order decides, and the reason says so. Imports state and fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from agentflow.cascade.routing.fixed import FixedOrder
from agentflow.cascade.routing.state import Abstain, Decision, Expected, Probe, State, Stop, Try


class Estimator(Protocol):
    """What is expected of a step: probabilities that the reply served in the end is good."""

    @property
    def reads_questions(self) -> bool:
        """Whether it looks at ``State.features``."""
        ...

    def served(self, state: State) -> tuple[int | None, float] | None:
        """The reply to serve if the climb ended now (its place in ``seen``) and its chance of being good.

        None when nothing is known of these rungs at this task.
        """
        ...

    def after(self, state: State, step: Try | Probe) -> float:
        """The expected chance that the best reply is good once this step is done."""
        ...


@dataclass(frozen=True, slots=True)
class ExpectedUtility:
    """At each step: stop, or take the step with the best ``worth * gain - price``, when it is above zero.

    A reply is worth ``Worth.good / (1 + dearness)``: as the budget gets scarce against the work that is left, the same
    gain justifies less. The price of a step counts its dollars, joules and seconds, its own signal, and what coming
    back to a warm prompt cache would cost.

    Args:
        estimator: what each step is expected to bring; None: the fixed order decides.
        floor: below this chance of being good nothing is served: the policy abstains.
        fallback: decides when nothing is known.
    """

    estimator: Estimator | None = None
    floor: float = 0.0
    fallback: FixedOrder = field(default_factory=FixedOrder)

    def choose(self, state: State) -> Decision:
        """The step of the greatest expected utility, or the end."""
        known = None if self.estimator is None else self.estimator.served(state)
        if self.estimator is None or known is None:
            decision = self.fallback.choose(state)
            return replace(decision, reason=f"{decision.reason} (nothing is learned of this yet: fixed order)")
        place, chance = known
        best: Try | Probe | None = None
        most, gain_of_best, price_of_best = 0.0, 0.0, 0.0
        for step, price, dearness in _steps(state):
            gain = self.estimator.after(state, step) - chance
            utility = state.worth.good * gain / (1.0 + dearness) - price
            # A first reply is asked for however dear it is: not to answer at all is the abstention below.
            if utility > most or (best is None and place is None):
                best, most, gain_of_best, price_of_best = step, utility, gain, price
        if best is None:
            return _end(place, chance, self.floor)
        return _with_reason(best, f"+{100 * gain_of_best:.1f} % good for ${price_of_best:.2g}")


def _steps(state: State) -> list[tuple[Try | Probe, float, float]]:
    """Every step that can be taken, its price in dollars of worth, and its dearness."""
    steps: list[tuple[Try | Probe, float, float]] = []
    for place in state.untried():
        rung = state.rungs[place]
        steps.append((Try(place, ""), state.worth.price(rung.cost + rung.return_cost), rung.dearness))
    for place, seen in enumerate(state.seen):
        rung = state.rungs[seen.rung]
        if rung.signal is not None and seen.verdict.valid and seen.verdict.confidence is None:
            steps.append((Probe(place, ""), state.worth.price(rung.signal), rung.dearness))
    return steps


def _with_reason(step: Try | Probe, reason: str) -> Try | Probe:
    return Try(step.rung, reason, step.beside) if isinstance(step, Try) else Probe(step.seen, reason)


def _end(place: int | None, chance: float, floor: float) -> Stop | Abstain:
    if place is None:
        return Abstain("no valid reply, and no rung is left to try")
    if chance < floor:
        return Abstain(f"a good reply is too unlikely: {100 * chance:.0f} %, below {100 * floor:.0f} %")
    return Stop(place, f"{100 * chance:.0f} % good; no step is worth its price")


def switch_cost(stay: Expected, switch: Expected, calls: float) -> Expected:
    """What leaving a warm prompt cache costs beyond the call itself, spread over the calls that lie ahead.

    Args:
        stay: of reading the prefix from the cache again.
        switch: of reading it uncached, when the chain comes back after its cache has expired.
        calls: expected to follow before it comes back; at least 1.
    """
    back = switch - stay
    calls = max(calls, 1.0)
    return Expected(back.usd / calls, back.joules / calls, back.seconds / calls)
