"""Effort: what a job may spend when its budget says nothing, and how deep it looks. Pure. Imports job, config.

``auto`` is the configuration as it stands: ``[budget]``, whole cascades, ``[research]``.

Dollars, tokens and seconds are choices: each step is about four times the one before. Joules are four times the one
before as well, from what one call of ``lite`` holds at most (November 2026, default settings, ``timeout_s`` 60): the
plan 6.2 kJ and the answer over 16 full passages 28.3 kJ on a remote model of unknown size (559 and 9,619 tokens at the
upper end of its prior), 6 kJ and 24 kJ on a server's CPU (16 cores at 25 W for the 15 s and 60 s that they may take). A
plan has a fifth of the job's joules, so 31.2 kJ is the least at which neither is cut short; 40 kJ leaves room for a
repair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel, ConfigDict

from agentflow.budget.budget import Budget
from agentflow.cascade.capabilities import known_context
from agentflow.config import CODE, EffortName, EffortSettings, Settings
from agentflow.jobs.job import Effort, JobBudget, budget_for_job
from agentflow.orchestration.library import shipped_agents
from agentflow.research.depth import AS_CONFIGURED, Depth
from agentflow.runtime import budget_of


@dataclass(frozen=True, slots=True)
class EffortProfile:
    """One effort: the limits of a job that has none of its own, and its depth."""

    budget: Budget
    depth: Depth

    def with_settings(self, said: EffortSettings) -> EffortProfile:
        """The same with what the configuration says of it."""
        limits = {name: getattr(said, name) for name in ("usd", "tokens", "joules", "seconds")}
        depth = {name: getattr(said, name) for name in ("cascade", "model_rungs", "breadth")}
        return EffortProfile(
            replace(self.budget, **{name: limit for name, limit in limits.items() if limit is not None}),
            replace(self.depth, **{name: value for name, value in depth.items() if value is not None}),
        )


class EffortView(BaseModel):
    """An effort as it is here, for people and over HTTP."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    effort: Effort
    """Its name, as a request says it."""
    budget: JobBudget
    """Limits of a job that has none of its own."""
    rungs: tuple[str, ...]
    """What an answer may climb: ``code`` is the step's own code."""
    sub_questions: int
    """Sub-questions of a plan, at most."""
    passages: int
    """Passages looked up for each sub-question."""
    most_passages: int
    """Passages that an answer is written from, at most."""


def _shipped(usd: str, tokens: int, joules: float, seconds: float, depth: Depth) -> EffortProfile:
    return EffortProfile(Budget(usd=Decimal(usd), tokens=tokens, joules=joules, seconds=seconds), depth)


EFFORTS: Final = MappingProxyType[EffortName, EffortProfile](
    {
        "lite": _shipped("0.02", 50_000, 40_000.0, 60.0, Depth(model_rungs=1)),
        "base": _shipped("0.10", 200_000, 160_000.0, 180.0, Depth(model_rungs=2)),
        "core": _shipped("0.40", 800_000, 640_000.0, 600.0, AS_CONFIGURED),
        "pro": _shipped("1.60", 3_200_000, 2_560_000.0, 1_800.0, Depth(breadth=2.0)),
        "ultra": _shipped("6.40", 12_800_000, 10_240_000.0, 7_200.0, Depth(breadth=3.0)),
    }
)


def effort_of(effort: Effort, settings: Settings) -> EffortProfile:
    """An effort as it is here: as shipped, with what ``[efforts.NAME]`` says otherwise."""
    if effort == "auto":
        return EffortProfile(budget_of(settings.budget), AS_CONFIGURED)
    said = settings.efforts.get(effort)
    return EFFORTS[effort] if said is None else EFFORTS[effort].with_settings(said)


def efforts(settings: Settings) -> tuple[EffortView, ...]:
    """Every effort as it is here, the least first; no model is asked."""
    return tuple(_view(effort, settings) for effort in ("auto", *EFFORTS))


def _view(effort: Effort, settings: Settings) -> EffortView:
    profile = effort_of(effort, settings)
    depth = profile.depth
    name = depth.cascade or shipped_agents()["synthesis"].cascade
    rungs = settings.cascade(name).climbed(depth.model_rungs)
    models = {rung: settings.models[rung] for rung in rungs if rung != CODE}
    contexts = [facts.context or known_context(facts.backend, facts.model or rung) for rung, facts in models.items()]
    looks = depth.widened(settings.research, contexts)
    return EffortView(
        effort=effort, budget=budget_for_job(profile.budget), rungs=rungs, sub_questions=looks.sub_questions,
        passages=looks.passages, most_passages=looks.most_passages,
    )  # fmt: skip


def limits_of(budget: JobBudget, effort: Effort, settings: Settings) -> Budget:
    """The limits of a job: its own, where it gives any; else those of its effort."""
    own = budget.limits()
    return own if own != Budget() else effort_of(effort, settings).budget
