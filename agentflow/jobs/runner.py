"""Runner: one ticket from being taken to its end. Imports kinds, transitions, journal, gate.

It takes the job, opens its budget where earlier runs left it, runs the kind's function, and writes how it ended, all
under the fence. Whatever happens, a run ends in exactly one of: an end, a pause, another try, handed back, or fenced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from agentflow.budget.budget import Budget
from agentflow.budget.events import BudgetEvent
from agentflow.budget.ledger import Entry, EntryFilter
from agentflow.budget.meter import Meter
from agentflow.errors import AgentflowError, BudgetExceeded, RunError, UsageError
from agentflow.jobs import spending, transitions
from agentflow.jobs.database import Database
from agentflow.jobs.effort import limits_of
from agentflow.jobs.gate import GatedLedger, Passage
from agentflow.jobs.job import JobBudget, JobFault, JobSpec, JobState, OnLimit, StopReason
from agentflow.jobs.journal import Journal
from agentflow.jobs.kinds import AwaitApproval, JobContext, Kind, Kinds, Outcome
from agentflow.jobs.naming import RESULT
from agentflow.jobs.plain import clean, result_text
from agentflow.jobs.previous import load_previous
from agentflow.jobs.records import spend_text
from agentflow.jobs.statements import row_of
from agentflow.jobs.store.base import BlobStore
from agentflow.jobs.transitions import Ending, Fence, Taken
from agentflow.runtime import Runtime
from agentflow.telemetry import tracing

_LOG = logging.getLogger(__name__)
# How long a job that was told to finish may take to put together what it has.
_LANDING_S: Final = 30.0
# How long a call waits that a job makes after it was told to end, before the job is told again.
_TOLD_AGAIN_S: Final = 0.05

End = Literal["stop", "deadline", "hand_back", "fenced"]


@dataclass(frozen=True, slots=True)
class Tries:
    """How often a failed job is tried, and how long it waits before: ``wait_s``, doubled each time."""

    most: int = 3
    wait_s: float = 2.0


class AtWork:
    """A job that this worker has, as its loops see it."""

    def __init__(self, fence: Fence) -> None:
        self.fence = fence
        self.taken: Taken | None = None
        self.end: End | None = None
        self.meter: Meter | None = None
        self.budget_changes = 0
        self.on_limit: OnLimit = "answer"
        self.lands = False
        """It was told to finish before it began: it replays what is paid for, and ends at the first new call."""
        self.ending = False
        self._ended = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    def begin(self, task: asyncio.Task[Any]) -> None:
        """This task is the job; it is ended at once if that was asked for meanwhile."""
        self._task = task
        if self.end is not None:
            task.cancel()

    def finish(self, end: End) -> None:
        """End it: the first reason counts, but being fenced overrules every other."""
        if end == "fenced" or self.end is None:
            self.end = end
            self._ended.set()
            if self._task is not None:
                self._task.cancel()

    def let_go(self) -> None:
        """Hold on to nothing of the job: its ledger, which holds this, is kept for as long as its meter is."""
        self.meter = self._task = None

    async def pass_out(self, kind: str) -> None:
        """Let a call of a rung leave; whoever makes one after its job was told to end is told again, and waits.

        Code may still put together what there is, unless the job is another worker's now.
        """
        if self.end is None and (kind == "code" or not self.lands):
            return
        if self.end in ("stop", "deadline") and kind == "code":
            return
        self.finish("stop")
        await asyncio.sleep(_TOLD_AGAIN_S)
        if self._task is not None:
            self._task.cancel()
        await asyncio.Event().wait()

    async def press(self) -> None:
        """Tell a job again that was told to end and takes too long over it."""
        if self.lands:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LANDING_S):
                    await self._ended.wait()
            self.finish("stop")
        await self._ended.wait()
        while self._task is not None:
            await asyncio.sleep(_LANDING_S)
            self._task.cancel()

    def limit(self, budget: Budget, on_limit: OnLimit, changes: int) -> None:
        """Hold the job to other limits from its next call on."""
        self.budget_changes, self.on_limit = changes, on_limit
        if self.meter is not None:
            self.meter.set_limits(budget)


class Runner:
    """Runs the jobs of one worker.

    Args:
        worker: its name.
        database: of the jobs.
        runtime: rungs, prices, and the ledger that all its jobs share.
        kinds: what runs which kind of job.
        store: of the jobs' files.
        journal: of the worker's events.
        passage: which calls pass before they leave.
        tries: how often a job is tried.
    """

    def __init__(
        self,
        worker: str,
        database: Database,
        runtime: Runtime,
        kinds: Kinds,
        store: BlobStore,
        journal: Journal,
        passage: Passage,
        tries: Tries,
    ) -> None:
        self._worker = worker
        self._database = database
        self._runtime = runtime
        self._kinds = kinds
        self._store = store
        self._journal = journal
        self._passage = passage
        self._tries = tries
        self.at_work: dict[str, AtWork] = {}

    async def run(self, id: str, number: int) -> bool:
        """Run the job of a ticket, if the ticket is still good.

        Returns:
            Whether the ticket is done with; else somebody else may have it.
        """
        fence = Fence(id, number, self._worker)
        there = self.at_work.get(id)
        if there is not None:
            return there.fence.ticket >= number
        work = self.at_work[id] = AtWork(fence)
        try:
            ledger_run = self._runtime.ledger.run
            work.taken = await self._database.write(lambda c: transitions.take(c, fence, ledger_run))
            if work.taken is None:
                return False
            work.lands = work.taken.wish == "stop"
            await self._run(work, work.taken)
        except AgentflowError as error:
            # Nothing could be written of how it ended: the worker's loop finds a job that nobody is at, and frees it.
            _LOG.error("Job %s: %s", id, error)
        finally:
            self._journal.drop(id)
            del self.at_work[id]
            work.let_go()
        return True

    async def _run(self, work: AtWork, taken: Taken) -> None:
        fence, run = work.fence, taken.run
        context: JobContext | None = None
        try:
            context = await self._open(work, taken)
            ending = await self._body(work, taken, context)
        except AgentflowError as error:
            ending = self._failed(taken, error, context)
        except Exception as error:
            ending = self._failed(taken, _unforeseen(fence.job, error), context)
        work.ending = True
        if work.meter is not None:
            work.meter.close()
        if work.end == "fenced":
            await self._sweep(fence.job)
            return
        if work.end == "hand_back":
            await self._journal.flush()
            await self._database.write(lambda c: transitions.hand_back(c, fence, run, "handed over"))
            return
        ending = await self._with_spend(work, ending)
        await self._journal.flush()
        if not await self._database.write(lambda c: transitions.finish(c, fence, run, ending)):
            _LOG.warning("Job %s is no longer this worker's; how its run ended was not written.", fence.job)

    async def _sweep(self, id: str) -> None:
        """What a job kept here after it was cancelled or deleted goes, too."""
        row = await self._database.read(lambda c: row_of(c, id))
        if row is None or row.state == str(JobState.CANCELLED):
            await self._store.delete(id)
        if row is None:
            await self._runtime.ledger.erase(id)

    async def _open(self, work: AtWork, taken: Taken) -> JobContext:
        """Everything the job holds: its budget as earlier runs left it, its chains' ledger, its files."""
        spec, fence = taken.spec, work.fence
        runtime = self._runtime
        recorded: Sequence[Entry] = ()
        if taken.earlier_run is not None:
            # Its calls may still be under way in a process that was only taken for dead.
            await runtime.ledger.take_over(fence.job, taken.earlier_run)
            recorded = await runtime.ledger.entries(EntryFilter(job=fence.job))
        keys = (entry.key for entry in recorded)
        gated = GatedLedger(runtime.ledger, self._passage, work.pass_out, taken.tried_again_ms, keys)
        limits = self.limits(spec, taken.budget)
        work.meter = meter = await runtime.job(
            fence.job, limits, tenant=spec.tenant, residency=spec.residency or None, ledger=gated
        )
        work.budget_changes, work.on_limit = taken.budget_changes, taken.budget.on_limit

        def spent() -> Mapping[str, str]:
            return {"spend": spend_text(spending.running(meter))}

        def tell(kind: str, data: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> None:
            latest = spent if kind in ("attempt", "state", "budget") else None
            self._journal.tell(fence, taken.run, [(kind, data)], changes, latest)

        def tell_budget(event: BudgetEvent) -> None:
            tell(
                "budget",
                {"change": event.kind, "node": event.node, "currency": event.currency, "message": event.message},
            )

        meter.listen(tell_budget, answers=False)
        plan = None if taken.plan is None else tuple(_strings(taken.plan))
        context = JobContext(fence.job, spec, taken.run, runtime, meter, self._store, tell, taken.approved, plan)
        if spec.previous is not None:
            context.earlier = partial(load_previous, self._database, self._store, spec)
        return context

    def limits(self, spec: JobSpec, budget: JobBudget) -> Budget:
        """What the meter holds the job to."""
        return limits_of(budget, spec.effort, self._runtime.settings)

    async def _body(self, work: AtWork, taken: Taken, context: JobContext) -> Ending:
        kind = self._kinds.get(taken.spec.kind)
        if kind is None:
            names = ", ".join(self._kinds)
            # Another worker may know it: they are not all of one version while a new one comes.
            raise RunError(f"This worker cannot run jobs of kind '{taken.spec.kind}'; it knows: {names}.")
        with tracing.job_span(taken.spec.kind, work.fence.job) as span:
            ending = await self._supervised(work, taken, kind, context)
            span.ended(str(ending.state))
            span.left(context.meter.left())
        return ending

    async def _supervised(self, work: AtWork, taken: Taken, kind: Kind, context: JobContext) -> Ending:
        """Run the kind's function in a task of its own, so that ending it ends nothing else."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_caught(kind, context), name=f"job {work.fence.job}")
            work.begin(task)
            pressing = group.create_task(work.press())
            await asyncio.wait([task])
            pressing.cancel()
        # Cancelled itself only when it was ended before its first step.
        return await self._ending(work, taken, context, asyncio.CancelledError() if task.cancelled() else task.result())

    async def _ending(
        self, work: AtWork, taken: Taken, context: JobContext, outcome: Outcome | BaseException
    ) -> Ending:
        match outcome:
            case Outcome():
                return await self._delivered(work, taken, context, outcome)
            case AwaitApproval() if work.end is None:
                return Ending(JobState.AWAITING_APPROVAL)
            case asyncio.CancelledError() | AwaitApproval() if work.end is not None:
                return await self._delivered(work, taken, context, context.kept)
            case BudgetExceeded():
                kept = context.kept
                told = None if kept is None else Outcome(kept.output, True, StopReason.BUDGET_REACHED)
                return await self._delivered(work, taken, context, told, str(outcome))
            case AgentflowError():
                return await self._with_partial(context, self._failed(taken, outcome, context))
            case asyncio.CancelledError():
                error = AgentflowError("The job cancelled itself.")
                return await self._with_partial(context, self._failed(taken, error, context))
            case _:
                error = _unforeseen(work.fence.job, outcome)
                return await self._with_partial(context, self._failed(taken, error, context))

    async def _delivered(
        self, work: AtWork, taken: Taken, context: JobContext, outcome: Outcome | None, refused: str = ""
    ) -> Ending:
        """How a run ends that came to something, or was ended from outside."""
        artifacts = None
        if outcome is not None and work.end not in ("fenced", "hand_back"):
            await context.save(RESULT, result_text(outcome.output), "application/json", role="result")
            artifacts = tuple(context.artifacts.values())
        partial = outcome is None or outcome.partial
        reason = StopReason.BUDGET_REACHED if outcome is None else outcome.stop_reason
        if work.end is not None and partial:
            reason = StopReason.DEADLINE if work.end == "deadline" else StopReason.STOPPED
        if not partial or reason != StopReason.BUDGET_REACHED:
            return Ending(JobState.COMPLETED, reason, partial, artifacts=artifacts)
        match work.on_limit:
            case "answer":
                return Ending(JobState.COMPLETED, reason, True, artifacts=artifacts)
            case "pause":
                return Ending(JobState.PAUSED_BUDGET, reason, True, artifacts=artifacts)
            case "fail":
                message = refused or "The budget left no room for all that was to do. Raise it, then resume the job."
                return Ending(JobState.FAILED, reason, True, JobFault(message=clean(message)), artifacts=artifacts)

    def _failed(self, taken: Taken, error: AgentflowError, context: JobContext | None) -> Ending:
        """Another try, or the end: what cannot be is not tried again."""
        if isinstance(error, UsageError):
            return Ending(JobState.FAILED, StopReason.ERROR, True, JobFault(message=clean(str(error))))
        failures = taken.failures + 1
        if failures < self._tries.most:
            wait_ms = int(self._tries.wait_s * 1000 * 2**taken.failures)
            fault = JobFault(message=clean(str(error)), retryable=True)
            return Ending(JobState.QUEUED, None, True, fault, retry_ms=wait_ms)
        fault = JobFault(message=clean(str(error)), retryable=True, dead_letter=True)
        return Ending(JobState.FAILED, StopReason.ERROR, True, fault)

    async def _with_partial(self, context: JobContext, ending: Ending) -> Ending:
        if context.kept is None:
            return ending
        await context.save(RESULT, result_text(context.kept.output), "application/json", role="result")
        return Ending(
            ending.state, ending.stop_reason, True, ending.error, None, tuple(context.artifacts.values()),
            ending.retry_ms,
        )  # fmt: skip

    async def _with_spend(self, work: AtWork, ending: Ending) -> Ending:
        if work.meter is None:
            return ending
        if work.taken is not None and work.taken.run == 1:
            spent = work.meter.spent
        else:
            # Of what earlier runs spent, the meter knows the amounts only.
            spent = spending.recorded(await self._runtime.ledger.entries(EntryFilter(job=work.fence.job)))
        spend = spending.ended(spent, work.meter.elapsed)
        return Ending(
            ending.state, ending.stop_reason, ending.partial, ending.error, spend, ending.artifacts, ending.retry_ms
        )


async def _caught(kind: Kind, context: JobContext) -> Outcome | BaseException:
    """What a job came to, or the error it ended with: a value either way, so that it ends nobody else."""
    try:
        output = await kind(context)
    except BaseExceptionGroup as group:
        return _first(group)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return error
    return output if isinstance(output, Outcome) else Outcome(output)


def _unforeseen(job: str, error: BaseException) -> AgentflowError:
    """What it says may hold anything; its name is enough to find it in the log."""
    _LOG.error("Job %s failed.", job, exc_info=error)
    return AgentflowError(f"The job's code failed: {type(error).__name__}. The worker's log has more.")


def _first(error: BaseException) -> BaseException:
    inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _first(inside[0]) if inside else error


def _strings(text: str) -> list[str]:
    return [str(part) for part in json.loads(text)]
