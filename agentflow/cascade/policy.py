"""How a cascade decides: when a reply is good enough, how often to repair, which rung next.

The decisions themselves are in ``routing``; this is what a configuration sets. Imports reply, routing, signals.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from agentflow.cascade.reply import Verdict
from agentflow.cascade.routing.drift import Guarded
from agentflow.cascade.routing.fixed import FixedOrder
from agentflow.cascade.routing.router import Skipping
from agentflow.cascade.routing.state import Decision, Routing, State, Worth
from agentflow.cascade.routing.utility import ExpectedUtility
from agentflow.cascade.signals import Signal


class Calibrated(Protocol):
    """What signals have been worth so far."""

    def probability(self, rung: str, task: str, signal: float) -> float | None:
        """The chance that a reply of this rung with this signal is good; None where too little is known to say."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How a cascade decides.

    Args:
        accept: the confidence, 0 to 1, that a valid reply needs while a dearer rung is left. A reply of
            unknown confidence is accepted when it is valid.
        repairs: how often a model is told what was wrong with its reply and asked again, before escalation.
        min_output: tokens below which a reply is not worth asking for, when the budget is nearly spent.
        routing: which rung next, or stop; None is the fixed order with ``accept``.
        signal: what finds out a reply's confidence where nothing else tells it.
        calibration: what the checks' confidence is worth, learned from outcomes.
        worth: of a good reply, a joule and a second, for policies that weigh them.
    """

    accept: float = 0.7
    repairs: int = 1
    min_output: int = 64
    routing: Routing | None = None
    signal: Signal | None = None
    calibration: Calibrated | None = None
    worth: Worth = field(default_factory=Worth)

    def choose(self, state: State) -> Decision:
        """The next step of a call: another rung, the end, or nothing to serve."""
        return (self.routing or FixedOrder(self.accept)).choose(state)

    @property
    def reads_questions(self) -> bool:
        """Whether it looks at the question's features."""
        if isinstance(self.routing, Skipping):
            return True
        learned = self.routing.learned if isinstance(self.routing, Guarded) else self.routing
        estimator = learned.estimator if isinstance(learned, ExpectedUtility) else None
        return estimator is not None and estimator.reads_questions

    def saw(self, state: State, rung: str, signal: float | None, *, accepted: bool) -> None:
        """Tell a learned policy what came of a rung, by which it notices that it is out of its depth."""
        routing = self.routing
        if isinstance(routing, Skipping):
            routing.saw(rung, state.features, accepted)
            routing = routing.policy
        if isinstance(routing, Guarded) and signal is not None:
            routing.saw(state.task, rung, signal)

    def good_enough(self, verdict: Verdict, *, last: bool, dearness: float = 0.0) -> bool:
        """Whether the fixed order would stop at a reply with this verdict.

        Args:
            verdict: what the checks say.
            last: no dearer rung is left.
            dearness: of the next rung, at the budget's shadow prices: the confidence that is asked for sinks to
                ``accept / (1 + dearness)``, so that a chain that spends too fast stops at cheaper replies.
        """
        return FixedOrder(self.accept).good_enough(verdict, last=last, dearness=dearness)
