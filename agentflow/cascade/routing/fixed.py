"""Fixed order and pinned: the policies that need no data."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.cascade.reply import Verdict
from agentflow.cascade.routing.state import Decision, Probe, State, Stop, Try, served_or_abstained


@dataclass(frozen=True, slots=True)
class FixedOrder:
    """Climb rung by rung until a valid reply's confidence reaches ``accept``.

    Args:
        accept: the confidence, 0 to 1, that a valid reply needs while a dearer rung is left. A reply of unknown
            confidence is accepted when it is valid. It sinks to ``accept / (1 + dearness)`` of the next rung, so that
            a chain that spends too fast stops at cheaper replies.
    """

    accept: float = 0.7

    def choose(self, state: State) -> Decision:
        """Stop at the latest reply when it is good enough; else the next rung; at the end the best valid reply."""
        untried = state.untried()
        following = state.rungs[untried[0]] if untried else None
        if state.seen:
            verdict = state.seen[-1].verdict
            if self._unknown(state) and following is not None:
                return Probe(len(state.seen) - 1, "its confidence is not known")
            if self.good_enough(verdict, last=following is None, dearness=following.dearness if following else 0.0):
                return Stop(len(state.seen) - 1, "good enough")
        if following is None:
            return served_or_abstained(state, "no rung is left to try")
        return Try(untried[0], self._reason(state))

    def _unknown(self, state: State) -> bool:
        """Whether the latest reply is valid, and its confidence could be found out."""
        seen = state.seen[-1]
        return seen.verdict.valid and seen.verdict.confidence is None and state.rungs[seen.rung].signal is not None

    def good_enough(self, verdict: Verdict, *, last: bool, dearness: float = 0.0) -> bool:
        """Whether to stop at a reply with this verdict; ``dearness`` is the next rung's, ``last``: there is none."""
        if not verdict.valid:
            return False
        return last or verdict.confidence is None or verdict.confidence >= self.accept / (1.0 + dearness)

    def _reason(self, state: State) -> str:
        if not state.seen:
            return "cheapest first"
        verdict = state.seen[-1].verdict
        if not verdict.valid:
            return "the last reply is not valid"
        return f"confidence {verdict.confidence or 0.0:.2f} is below {self.accept:.2f}"


@dataclass(frozen=True, slots=True)
class Pinned:
    """One rung and no other: for reproducible runs, for audits, for a warm prompt cache.

    Args:
        rung: its name.
    """

    rung: str

    def choose(self, state: State) -> Decision:
        """That rung, once; then its reply."""
        for place in state.untried():
            if state.rungs[place].name == self.rung and not state.seen:
                return Try(place, f"pinned to {self.rung}")
        return served_or_abstained(state, f"pinned to {self.rung}")
