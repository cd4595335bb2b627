"""Running a research job: an id, a budget, events, a run folder. Imports runs, events, research, runtime."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.budget.budget import Budget
from agentflow.budget.events import Ask, BudgetEvent
from agentflow.budget.meter import Meter
from agentflow.errors import UsageError
from agentflow.jobs.events import Event, EventLog
from agentflow.jobs.runs import RunFolder, RunStore, new_job_id
from agentflow.research.pipeline import ResearchJob, ResearchTask
from agentflow.research.report import Report
from agentflow.runtime import Runtime
from agentflow.telemetry import tracing


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A job that has ended: its report, and the folder that keeps it."""

    report: Report
    folder: RunFolder


async def run_research(
    runtime: Runtime,
    task: ResearchTask,
    budget: Budget,
    *,
    tenant: str | None = None,
    ask: Ask | None = None,
    out: Path | None = None,
    observe: Callable[[Event, Meter], None] | None = None,
    residency: Collection[str] | None = None,
) -> FinishedJob:
    """Run one research job to its end and keep it.

    Args:
        runtime: rungs, prices, ledger.
        task: the question and where to look.
        budget: limits of the whole job.
        tenant: who pays, by its name in the configuration.
        ask: asked when a call does not fit a budget with ``on_exceed="ask"``.
        out: the folder for this run; one named after the job in the configured place when None.
        observe: told of every event, with the job's node of the budget tree.
        residency: every call of the job is served in regions with one of these tags.

    Raises:
        AgentflowError: the job could not be run; no folder is left behind.
    """
    job = new_job_id()
    meter = await runtime.job(job, budget, tenant=tenant, residency=residency)
    meter.ask = ask
    folder = RunFolder(out) if out is not None else RunStore(runtime.settings.stores.runs).run(job)
    if folder.path.exists():
        raise UsageError(f"The run folder {folder.path} exists already. Choose another place with --out.")
    log = EventLog()

    def emit(kind: str, data: Mapping[str, Any]) -> None:
        if kind == "sources.read":
            # From here on the job has something to keep: earlier errors leave nothing behind.
            folder.create()
            log.write_to(folder.events)
        event = log.emit(kind, data)
        if observe is not None:
            observe(event, meter)

    def emit_budget(event: BudgetEvent) -> None:
        emit(f"budget.{event.kind}", {"node": event.node, "currency": event.currency, "message": event.message})

    meter.listen(emit_budget, answers=False)
    emit("job.started", {"job": job, "job_kind": "research", "question": task.question, "origins": task.origins})
    research = ResearchJob(runtime, meter, emit)
    try:
        with tracing.job_span("research", job) as span:
            report = await research.run(task)
            state = "done" if report.ending is None else report.ending.reason
            span.ended(state)
            span.left(meter.left())
        if not folder.path.exists():
            folder.create()
            log.write_to(folder.events)
        reading = research.findings.reading
        folder.save(report, reading.sources if reading is not None else ())
        emit("job.ended", {"job": job, "state": state, "answered": report.answered, "claims": len(report.claims)})
    except BaseException:
        log.close()
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    finally:
        meter.close()
        log.close()
    return FinishedJob(report, folder)
