"""Running a research job: at once, with a run folder, or as a kind of durable job. Imports research, runs, kinds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from agentflow.budget.budget import Budget
from agentflow.budget.events import Ask, BudgetEvent
from agentflow.budget.ledger import EntryFilter
from agentflow.budget.meter import Meter
from agentflow.errors import UsageError
from agentflow.jobs.effort import effort_of
from agentflow.jobs.events import Event, EventLog
from agentflow.jobs.job import JobState, StopReason
from agentflow.jobs.kinds import JobContext, Outcome
from agentflow.jobs.naming import BASIS, REPORT, new_job_id
from agentflow.jobs.plain import compact
from agentflow.jobs.runs import RunFolder, RunStore
from agentflow.jobs.spending import recorded
from agentflow.research.pipeline import ResearchJob, ResearchTask
from agentflow.research.rendering import to_html, to_markdown
from agentflow.research.report import Report
from agentflow.research.sources.source import date_facts
from agentflow.runtime import Runtime
from agentflow.telemetry import tracing

if TYPE_CHECKING:
    from agentflow.jobs.collections.shelf import Shelves


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


async def research_kind(context: JobContext, shelves: Shelves | None = None) -> Outcome:
    """A research job as workers run it: its report, rendered reports and sources become the job's files.

    Args:
        context: what it is given.
        shelves: where the files of collections are.
    """
    spec = context.spec
    shelf = None
    if spec.sources.collections:
        if shelves is None:
            raise UsageError("This worker has no collections. Give the files themselves as sources.")
        shelf = await shelves.open(spec.sources.collections, spec.tenant or "")
    task = await _task(context)
    events = _ResearchEvents(context)
    research = ResearchJob(context.runtime, context.meter, events.emit, context.planned, shelf)
    if context.run > 1:
        entries = await context.runtime.ledger.entries(EntryFilter(job=context.id))
        research.findings.earlier = recorded(entries)
    report = await research.run(task)
    reading = research.findings.reading
    texts: dict[str, str] = {}
    for source in reading.sources if reading is not None else ():
        texts[source.id] = source.text
        facts: dict[str, JsonValue] = {
            "id": source.id, "origin": source.origin, "title": source.title, "read_at": source.read_at,
            **date_facts(source.date),
        }  # fmt: skip
        await context.save(f"sources/{source.id}.txt", source.text, source.media_type, role="source", facts=facts)
    markdown = to_markdown(report, texts)
    await context.save("report.md", markdown, "text/markdown")
    await context.save("report.html", to_html(report, texts), "text/html")
    data = report.model_dump(mode="json")
    await context.save(REPORT, compact(data), "application/json")
    if report.basis is not None:
        await context.save(BASIS, compact(data["basis"]), "application/json")
        output = report.data
    else:
        # Of a form that could not be filled too: nothing is made up in its place.
        output = markdown if spec.output.format == "text" else data
    return Outcome(output, report.ending is not None, _stop_reason(report))


async def _task(context: JobContext) -> ResearchTask:
    spec = context.spec
    scope = spec.sources.scope(allow_private=spec.sources.allow_private)
    depth = effort_of(spec.effort, context.runtime.settings).depth
    earlier, kept = (None, ()) if context.earlier is None else await context.earlier()
    return ResearchTask(spec.query, spec.sources.origins, scope, depth, spec.output, spec.verify, earlier, kept)


class _ResearchEvents:
    """The walk of a research job in the words of job events."""

    _STATES: Mapping[str, JobState] = {"planner": JobState.PLANNING, "retrieval": JobState.RUNNING}

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._unfit: dict[tuple[str, str], tuple[str, str]] = {}

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell of one thing that happened."""
        match kind.split(".")[0]:
            case "task":
                agent = str(data["agent"])
                if kind == "task.started" and agent in self._STATES:
                    self._context.enter(self._STATES[agent])
                self._context.emit("task", {"step": kind.partition(".")[2], **data})
            case "attempt":
                self._escalated(data)
                self._context.emit("attempt", data)
            case "verifying":
                self._context.enter(JobState.VERIFYING)
            case "sources":
                self._context.emit("note", {"note": "sources read", **data})
            case "budget":
                self._context.emit("budget", {"change": kind.partition(".")[2], **data})
            case _:
                self._context.emit(kind, data)

    def _escalated(self, data: Mapping[str, Any]) -> None:
        """A call that went on to another rung was not content with the one before."""
        call = (str(data["chain"]), str(data["call"]))
        before = self._unfit.pop(call, None)
        if before is not None and before[0] != data["rung"]:
            self._context.emit(
                "escalation",
                {"chain": call[0], "call": call[1], "from": before[0], "to": data["rung"], "reason": before[1]},
            )
        if data["outcome"] != "accepted":
            self._unfit[call] = (str(data["rung"]), str(data["reason"] or data["outcome"]))


def _stop_reason(report: Report) -> StopReason:
    match report.ending:
        case None:
            return StopReason.SATISFIED if report.answered else StopReason.NO_NEW_EVIDENCE
        case ending if ending.reason == "budget":
            return StopReason.BUDGET_REACHED
        case ending if ending.reason == "error":
            return StopReason.ERROR if report.answered else StopReason.NO_NEW_EVIDENCE
        case _:
            return StopReason.STOPPED
