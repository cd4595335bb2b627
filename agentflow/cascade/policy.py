"""When a reply is good enough, and what happens when it is not. Imports only reply."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.cascade.reply import Verdict


@dataclass(frozen=True, slots=True)
class Policy:
    """How a cascade decides.

    Args:
        accept: the confidence, 0 to 1, that a valid reply needs while a dearer rung is left. A reply of
            unknown confidence is accepted when it is valid.
        repairs: how often a model is told what was wrong with its reply and asked again, before escalation.
        min_output: tokens below which a reply is not worth asking for, when the budget is nearly spent.
    """

    accept: float = 0.7
    repairs: int = 1
    min_output: int = 64

    def good_enough(self, verdict: Verdict, *, last: bool, dearness: float = 0.0) -> bool:
        """Whether to stop at a reply with this verdict.

        Args:
            verdict: what the checks say.
            last: no dearer rung is left.
            dearness: of the next rung, at the budget's shadow prices: the confidence that is asked for sinks to
                ``accept / (1 + dearness)``, so that a chain that spends too fast stops at cheaper replies.
        """
        if not verdict.valid:
            return False
        return last or verdict.confidence is None or verdict.confidence >= self.accept / (1.0 + dearness)
