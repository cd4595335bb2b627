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

    def good_enough(self, verdict: Verdict, *, last: bool) -> bool:
        """Whether to stop at a reply with this verdict; ``last`` when no dearer rung is left."""
        if not verdict.valid:
            return False
        return last or verdict.confidence is None or verdict.confidence >= self.accept
