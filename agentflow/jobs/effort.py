"""Effort: how much a job may spend when its budget says nothing. Imports job.

The figures are choices, not measurements: each step is about four times the one before, and ``auto`` is what the
configuration says under [budget].
"""

from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType
from typing import Final

from agentflow.budget.budget import Budget
from agentflow.jobs.job import Effort, JobBudget

EFFORTS: Final = MappingProxyType(
    {
        "lite": JobBudget(usd=Decimal("0.02"), tokens=50_000, joules=5_000.0, seconds=60.0),
        "base": JobBudget(usd=Decimal("0.10"), tokens=200_000, joules=20_000.0, seconds=180.0),
        "core": JobBudget(usd=Decimal("0.40"), tokens=800_000, joules=80_000.0, seconds=600.0),
        "pro": JobBudget(usd=Decimal("1.60"), tokens=3_200_000, joules=320_000.0, seconds=1_800.0),
        "ultra": JobBudget(usd=Decimal("6.40"), tokens=12_800_000, joules=1_280_000.0, seconds=7_200.0),
    }
)


def limits_of(budget: JobBudget, effort: Effort, configured: Budget) -> Budget:
    """The limits of a job: its own, where it gives any; else those of its effort."""
    own = budget.limits()
    if own != Budget():
        return own
    return configured if effort == "auto" else EFFORTS[effort].limits()
