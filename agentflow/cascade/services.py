"""What the chains of a process share beside budgets and the ledger. May import cache, escalations, placement."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.cascade.cache import ReplyCache
from agentflow.cascade.escalations import EscalationLog
from agentflow.cascade.placement import Placement
from agentflow.cascade.rung import CodeRung


@dataclass(frozen=True, slots=True)
class Services:
    """What is None, a chain does without.

    Args:
        replies: where calls that opt in with ``reuse`` look for a reply first.
        embedding: turns a question into a vector (its Answer's value: bytes of float32, of unit length), for calls
            that opt in to other wordings of a question.
        escalations: where calls that a small model failed and a larger one answered are kept.
        placement: where and when calls are served.
    """

    replies: ReplyCache | None = None
    embedding: CodeRung | None = None
    escalations: EscalationLog | None = None
    placement: Placement = field(default_factory=Placement)
