"""What a job has spent: from the ledger once a run ends, from its meter while it runs. Imports budget."""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.budget.currency import MICRO
from agentflow.budget.ledger import Entry
from agentflow.budget.meter import Meter
from agentflow.budget.money import decimal_text
from agentflow.budget.spend import Spend
from agentflow.budget.tally import Tally
from agentflow.jobs.job import JobSpend


def running(meter: Meter) -> JobSpend:
    """What a job at work has spent, earlier runs included."""
    tokens, nano_usd, microjoules, micrograms, calls = meter.accounts[0].spent
    return JobSpend(
        calls=calls, tokens=tokens, usd=decimal_text(nano_usd), joules=microjoules / MICRO,
        grams_co2e=micrograms / MICRO, seconds=round(meter.elapsed, 3),
    )  # fmt: skip


def ended(spent: Spend, seconds: float) -> JobSpend:
    """What a job has spent in all, with the bounds of its joules."""
    energy = spent.energy
    known = energy.high > 0.0
    return JobSpend(
        calls=spent.calls, tokens=spent.tokens, usd=decimal_text(spent.nano_usd), joules=energy.mean,
        joules_low=energy.low if known else None, joules_high=energy.high if known else None,
        provenance=energy.provenance if known else None, grams_co2e=spent.co2e.mean / MICRO,
        seconds=round(seconds, 3), in_doubt=spent.in_doubt,
    )  # fmt: skip


def recorded(entries: Iterable[Entry]) -> Spend:
    """What the entries of a job add up to."""
    tally = Tally()
    for entry in entries:
        if entry.spend is not None:
            tally.add(entry.spend)
    return tally.total()
