"""Assembly: what a job found and spent, as a Report. Imports report, evidence, budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from pydantic import JsonValue

from agentflow.budget.currency import COUNTED, MICRO, Currency, amount_text
from agentflow.budget.meter import Meter
from agentflow.budget.money import decimal_text
from agentflow.budget.spend import Spend
from agentflow.chain import CallRecord
from agentflow.research.citations import Verified
from agentflow.research.evidence import Evidence
from agentflow.research.length import within
from agentflow.research.output import JobOutput, Verify
from agentflow.research.report import (
    AttemptEnergy,
    AttemptLine,
    Ending,
    EnergyFigure,
    Limit,
    MeterLine,
    Report,
    SkippedSource,
    SourceEntry,
    SubQuestion,
)
from agentflow.research.report import Meter as MeterFigures
from agentflow.research.retrieval import Bm25Index
from agentflow.research.sources import Reading
from agentflow.research.sources.store import stored_name


@dataclass(slots=True)
class Findings:
    """What a job has so far; every part may still be missing when it is stopped.

    ``output`` and ``verify`` are what was asked of the result. ``earlier`` is what earlier runs of the job spent, of
    which its meter knows the amounts only.
    """

    job: str
    question: str = ""
    reading: Reading | None = None
    index: Bm25Index | None = None
    sub_questions: tuple[str, ...] = ()
    evidence: Evidence | None = None
    verified: Verified | None = None
    rungs: dict[str, str] = field(default_factory=dict[str, str])
    records: list[CallRecord] = field(default_factory=list[CallRecord])
    undone: list[str] = field(default_factory=list[str])
    ending: Ending | None = None
    earlier: Spend = field(default_factory=Spend)
    output: JobOutput = field(default_factory=JobOutput)
    verify: Verify = "quotes"
    language: str | None = None
    data: JsonValue = None
    basis: Mapping[str, tuple[str, ...]] | None = None


def assemble(findings: Findings, meter: Meter) -> Report:
    """The report of a job in its present state."""
    reading = findings.reading or Reading((), ())
    verified = findings.verified or Verified((), ())
    spent = (meter.spent + findings.earlier).lasting(meter.elapsed)
    answered = {claim.question for claim in verified.claims}
    cited = {citation.source_id for claim in verified.claims for citation in claim.citations}
    claims, left_out = within(verified.claims, findings.output.max_words)
    return Report(
        job=findings.job,
        question=findings.question,
        answered=bool(verified.claims),
        sub_questions=tuple(
            SubQuestion(text=text, answered=number in answered) for number, text in enumerate(findings.sub_questions)
        ),
        claims=claims,
        unsupported=verified.unsupported,
        sources=tuple(
            SourceEntry(
                id=source.id,
                origin=source.origin,
                title=source.title,
                sha256=source.sha256,
                read_at=source.read_at,
                media_type=source.media_type,
                characters=len(source.text),
                file=stored_name(source.id),
                date=None if source.date is None else source.date.day.isoformat(),
                date_from=None if source.date is None else source.date.basis,
            )
            for source in reading.sources
            if source.id in cited
        ),
        sources_read=len(reading.sources),
        skipped=tuple(SkippedSource(origin=s.origin, reason=s.reason, cause=s.cause) for s in reading.skipped),
        rungs=findings.rungs,
        meter=MeterFigures(
            total=_line(meter, spent),
            parts=tuple(_line(child, child.spent) for child in meter.children),
            limits=_limits(meter, spent),
            attempts=tuple(_attempt(record) for record in findings.records),
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        ending=findings.ending,
        language=findings.language,
        max_words=findings.output.max_words,
        left_out=left_out,
        citation_style=findings.output.citations,
        data=findings.data,
        basis=None if findings.basis is None else dict(findings.basis),
    )


def _line(node: Meter, spent: Spend) -> MeterLine:
    return MeterLine(
        node=node.name,
        calls=spent.calls,
        input_tokens=spent.usage.input,
        cached_input_tokens=spent.usage.cached_input,
        output_tokens=spent.usage.output,
        usd=decimal_text(spent.nano_usd),
        joules=_energy(spent),
        grams_co2e=round(spent.co2e.mean / MICRO, 6),
        seconds=round(spent.seconds, 4),
        in_doubt_calls=spent.in_doubt,
        estimated_calls=spent.estimated,
        overruns=spent.overruns,
    )


def _energy(spent: Spend) -> EnergyFigure:
    energy = spent.energy
    return EnergyFigure(
        mean=round(energy.mean, 6), low=round(energy.low, 6), high=round(energy.high, 6), provenance=energy.provenance
    )


def _limits(node: Meter, spent: Spend) -> tuple[Limit, ...]:
    figures: list[tuple[Currency, float | None, float]] = list(zip(COUNTED, node.limits, spent.amounts, strict=True))
    figures.append(("seconds", node.budget.seconds, spent.seconds))
    return tuple(
        Limit(currency=currency, limit=amount_text(currency, limit), spent=amount_text(currency, used))
        for currency, limit, used in figures
        if limit is not None
    )


def _attempt(record: CallRecord) -> AttemptLine:
    attempt = record.attempt
    kind: Literal["code", "model"] = attempt.kind
    # A reply that was kept may still have served in the end; the trail of the call says so by its last word.
    served = attempt.outcome == "accepted"
    return AttemptLine(
        call=f"{record.chain.split('/', 1)[-1]}/{record.call}",
        rung=attempt.rung,
        kind=kind,
        served=served,
        verdict="accepted" if served else f"{attempt.outcome}: {attempt.reason}" if attempt.reason else attempt.outcome,
        confidence=attempt.confidence,
        tokens=attempt.spend.tokens,
        usd=decimal_text(attempt.spend.nano_usd),
        joules=round(attempt.spend.energy.mean, 6),
        seconds=round(attempt.spend.seconds, 4),
        energy=_attempt_energy(attempt.spend),
    )


def _attempt_energy(spend: Spend) -> AttemptEnergy:
    energy, usage = spend.energy, spend.usage
    return AttemptEnergy(
        input_tokens=usage.input,
        cached_input_tokens=usage.cached_input,
        output_tokens=usage.output,
        mean=energy.mean,
        low=energy.low,
        high=energy.high,
        provenance=energy.provenance,
        scope=energy.scope,
        assumed=energy.assumed,
        basis=dict(energy.basis),
    )
