"""Latency first: the quickest rungs first, side by side, and the first good reply ends the rest."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.cascade.routing.fixed import FixedOrder
from agentflow.cascade.routing.state import Decision, RungFacts, State, Stop, Try, served_or_abstained


@dataclass(frozen=True, slots=True)
class LatencyFirst:
    """Ask the quickest rungs first, by their p95.

    Args:
        accept: the confidence that a valid reply needs while another rung is left.
        abreast: how many rungs are started at once. Each is held and paid for: two at once cost both.
        least: rungs of a predicted quality below this are left out; of unknown quality they are not.
    """

    accept: float = 0.7
    abreast: int = 2
    least: float = 0.0

    def choose(self, state: State) -> Decision:
        """Stop at any good reply; else start the quickest rungs that are left."""
        enough = FixedOrder(self.accept)
        for place, seen in enumerate(state.seen):
            if enough.good_enough(seen.verdict, last=False):
                return Stop(place, "good enough")
        quick = sorted(
            (place for place in state.untried() if not self._too_weak(state.rungs[place])),
            key=lambda place: (_p95(state.rungs[place]), place),
        )
        if not quick:
            return served_or_abstained(state, "no rung is left to try")
        first, *beside = quick[: max(self.abreast, 1)]
        return Try(first, f"quickest, {_p95(state.rungs[first]):.2g} s at p95", tuple(beside))

    def _too_weak(self, rung: RungFacts) -> bool:
        return rung.quality is not None and rung.quality < self.least


def _p95(rung: RungFacts) -> float:
    return rung.cost.seconds if rung.p95_s is None else rung.p95_s
