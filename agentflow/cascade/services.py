"""What the chains of a process share beside budgets and the ledger. May import cache, escalations."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.cascade.cache import ReplyCache
from agentflow.cascade.escalations import EscalationLog


@dataclass(frozen=True, slots=True)
class Services:
    """Each is optional: a chain without it does without.

    Args:
        replies: where calls that opt in with ``reuse`` look for a reply first.
        escalations: where calls that a small model failed and a larger one answered are kept.
    """

    replies: ReplyCache | None = None
    escalations: EscalationLog | None = None
