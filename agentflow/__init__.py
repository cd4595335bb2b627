"""agentflow: agentic work on language models, with the bill in hand.

This is the public face; nothing else is public. Names are loaded when first used, so that ``import agentflow``
costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentflow.budget.admission import Statistical
    from agentflow.budget.budget import Budget
    from agentflow.budget.spend import Spend
    from agentflow.cascade.cache import Reuse
    from agentflow.cascade.cascade import Cascade
    from agentflow.cascade.checks import Candidate, Check, token_confidence
    from agentflow.cascade.reply import Attempt, Reply, Verdict
    from agentflow.chain import Chain
    from agentflow.client import AsyncClient, Client
    from agentflow.config import Settings
    from agentflow.energy.interval import Energy
    from agentflow.errors import (
        AgentflowError,
        ApiError,
        BudgetExceeded,
        CallFailed,
        ConfigError,
        EffectInDoubt,
        LedgerError,
        NotDone,
        NotServed,
        SourceError,
        UnpricedModel,
        UnprofiledModel,
        UsageError,
    )
    from agentflow.flow import Flow
    from agentflow.images import read_image
    from agentflow.jobs.handle import JobHandle
    from agentflow.jobs.job import JobBudget, JobEvent, JobResult, JobSpec, JobState, JobView, StopReason
    from agentflow.jobs.kinds import JobContext
    from agentflow.messages import Image, Message, Request, TokenUsage
    from agentflow.orchestration.agent import Agent
    from agentflow.research.output import JobOutput
    from agentflow.research.report import Citation, Claim, Report
    from agentflow.research.sources import Scope

__all__ = [
    "Agent",
    "AgentflowError",
    "ApiError",
    "AsyncClient",
    "Attempt",
    "Budget",
    "BudgetExceeded",
    "CallFailed",
    "Candidate",
    "Cascade",
    "Chain",
    "Check",
    "Citation",
    "Claim",
    "Client",
    "ConfigError",
    "EffectInDoubt",
    "Energy",
    "Flow",
    "Image",
    "JobBudget",
    "JobContext",
    "JobEvent",
    "JobHandle",
    "JobOutput",
    "JobResult",
    "JobSpec",
    "JobState",
    "JobView",
    "LedgerError",
    "Message",
    "NotDone",
    "NotServed",
    "Reply",
    "Report",
    "Request",
    "Reuse",
    "Scope",
    "Settings",
    "SourceError",
    "Spend",
    "Statistical",
    "StopReason",
    "TokenUsage",
    "UnpricedModel",
    "UnprofiledModel",
    "UsageError",
    "Verdict",
    "__version__",
    "read_image",
    "token_confidence",
]

__version__ = "0.1.0"

_HOMES = {
    "Agent": "orchestration.agent",
    "AsyncClient": "client",
    "Attempt": "cascade.reply",
    "Budget": "budget.budget",
    "Candidate": "cascade.checks",
    "Cascade": "cascade.cascade",
    "Chain": "chain",
    "Check": "cascade.checks",
    "Citation": "research.report",
    "Claim": "research.report",
    "Client": "client",
    "Energy": "energy.interval",
    "Flow": "flow",
    "JobBudget": "jobs.job",
    "JobContext": "jobs.kinds",
    "JobEvent": "jobs.job",
    "JobHandle": "jobs.handle",
    "JobOutput": "research.output",
    "JobResult": "jobs.job",
    "JobSpec": "jobs.job",
    "JobState": "jobs.job",
    "JobView": "jobs.job",
    "Image": "messages",
    "Message": "messages",
    "Reply": "cascade.reply",
    "Report": "research.report",
    "Request": "messages",
    "Reuse": "cascade.cache",
    "Scope": "research.sources",
    "Settings": "config",
    "Spend": "budget.spend",
    "Statistical": "budget.admission",
    "StopReason": "jobs.job",
    "TokenUsage": "messages",
    "Verdict": "cascade.reply",
    "read_image": "images",
    "token_confidence": "cascade.checks",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'agentflow' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"agentflow.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
