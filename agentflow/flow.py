"""Flow: the one object an app builder holds. Opens chains, runs jobs, closes what it opened.

On a floor of its own above jobs, because it runs them. Imports jobs, runtime, config.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentflow.backends.base import Backend
from agentflow.budget.admission import Admission
from agentflow.budget.budget import Budget
from agentflow.budget.events import Ask
from agentflow.chain import Chain
from agentflow.config import Settings, load_settings
from agentflow.errors import AgentflowError, UsageError
from agentflow.jobs.effort import effort_of
from agentflow.jobs.job import Effort
from agentflow.jobs.research import run_research
from agentflow.jobs.runs import RunStore
from agentflow.research.output import JobOutput, Verify
from agentflow.research.pipeline import ResearchTask
from agentflow.research.report import Report
from agentflow.research.sources.scope import ANYTHING, Scope
from agentflow.runtime import Runtime, budget_of

if TYPE_CHECKING:
    from agentflow.jobs.handle import JobHandle
    from agentflow.jobs.kinds import Kind
    from agentflow.jobs.service import Jobs
    from agentflow.jobs.worker import Worker

_LOG = logging.getLogger(__name__)
# How often a process that may not work on the jobs of an SQLite file looks whether it may now.
_LOOK_AGAIN_S = 1.0


class Flow:
    """Settings at work: chains to call models through, and research jobs.

    Args:
        settings: the configuration; the environment's when None.
        backends: what to ask instead of the backends that the settings describe, by the names of models.

    Example:
        >>> async with Flow.from_config() as flow:                       # doctest: +SKIP
        ...     report = await flow.research("What limits inference?", sources=["docs"], budget=Budget(usd=0.25))
        ...     print(report.answered, report.claims[0].text)
    """

    def __init__(self, settings: Settings | None = None, *, backends: Mapping[str, Backend] | None = None) -> None:
        self.settings = settings or Settings()
        self.runtime = Runtime(self.settings, backends=backends)
        if self.settings.research.embedder is not None:
            from agentflow.research.retrieval_rung import embed_as_configured

            embed_as_configured(self.runtime)
        self.runs = RunStore(self.settings.stores.runs)
        self._kinds: dict[str, Kind] = {}
        self._jobs: Jobs | None = None
        self._worker: Worker | None = None
        self._serving: asyncio.Task[None] | None = None
        self._enough = asyncio.Event()

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Self:
        """A flow from agentflow.toml, the environment, or nothing at all.

        Args:
            path: the configuration file; when None it is looked for as ``load_settings`` says.

        Raises:
            ConfigError: the configuration says something that cannot be.
        """
        return cls(load_settings(Path(path) if path is not None else None))

    def chain(
        self,
        name: str,
        *,
        budget: Budget | None = None,
        cascade: str = "default",
        admission: Admission | None = None,
        ask: Ask | None = None,
        residency: Collection[str] | None = None,
    ) -> Chain:
        """Open a chain: every call through it is metered under one budget.

        Args:
            name: what it is called in reports and spans.
            budget: its limits; those of the configuration when None.
            cascade: which rungs serve it. Code rungs belong to jobs, so a chain climbs the model rungs only.
            admission: how much of a reply is held before a call leaves; the worst case when None.
            ask: asked when a call does not fit a budget with ``on_exceed="ask"``; returns what to raise, or None.
            residency: its calls are served in regions with one of these tags, as in ``{"eu"}``; nowhere else.

        Raises:
            UnpricedModel: a model of the cascade has no known price.
            UnprofiledModel: joules are limited, and nothing is known of a model's hardware.
        """
        budget = budget or budget_of(self.settings.budget)
        chain = self.runtime.chain(name, budget=budget, cascade=cascade, admission=admission, residency=residency)
        chain.meter.ask = ask
        return chain

    async def tenant_chain(
        self,
        tenant: str,
        name: str,
        *,
        budget: Budget | None = None,
        cascade: str = "default",
        admission: Admission | None = None,
        ask: Ask | None = None,
        residency: Collection[str] | None = None,
    ) -> Chain:
        """Open a chain that a tenant pays for: the tenant's budgets hold as well, over all its processes.

        Args:
            tenant: its name in the configuration.
            name: what the chain is called in reports and spans.
            budget: limits of its own; those of the configuration when None.
            cascade: which rungs serve it.
            admission: how much of a reply is held before a call leaves; the worst case when None.
            ask: asked when a call does not fit a budget with ``on_exceed="ask"``; returns what to raise, or None.
            residency: its calls are served in regions with one of these tags, as in ``{"eu"}``; nowhere else.

        Raises:
            LedgerError: the ledger cannot be read.
            UnpricedModel: a model of the cascade has no known price.
            UnprofiledModel: joules are limited, and nothing is known of a model's hardware.
            UsageError: the configuration has no such tenant.
        """
        node = await self.runtime.tenant(tenant)
        budget = budget or budget_of(self.settings.budget)
        chain = self.runtime.chain(
            name, parent=node, budget=budget, cascade=cascade, admission=admission, residency=residency
        )
        chain.meter.ask = ask
        return chain

    async def research(
        self,
        question: str,
        sources: Sequence[str | Path],
        *,
        budget: Budget | None = None,
        effort: Effort = "auto",
        scope: Scope = ANYTHING,
        tenant: str | None = None,
        ask: Ask | None = None,
        residency: Collection[str] | None = None,
        output: JobOutput | None = None,
        verify: Verify = "quotes",
    ) -> Report:
        """Answer a question from sources, every claim with verified citations.

        Args:
            question: what you want to know.
            sources: paths of files and folders, and http(s) addresses.
            budget: limits of the job; those of its effort when None.
            effort: how deep to look; ``auto`` is as configured.
            scope: what may be read of the sources: which domains, which days, private addresses, or no page at all.
            tenant: who pays, by its name in the configuration.
            ask: asked when a call does not fit a budget with ``on_exceed="ask"``; returns what to raise, or None.
            residency: every call of the job is served in regions with one of these tags, as in ``{"eu"}``.
            output: how long the answer may be, its language, its citations, and a JSON schema to fill: the report's
                ``data`` then.
            verify: ``judged`` has a model judge every claim against its quotes, after code has checked it.

        Returns:
            The report. Its run folder is ``flow.runs.run(report.job)``. A budget that ends the job early is no
            error: ``report.ending`` says which limit it was and what was left undone.

        Raises:
            SourceError: a source cannot be read.
            UsageError: the question is empty, or there is no such tenant.
        """
        profile, origins = effort_of(effort, self.settings), tuple(str(source) for source in sources)
        task = ResearchTask(question, origins, scope, profile.depth, output or JobOutput(), verify)
        finished = await run_research(
            self.runtime, task, budget or profile.budget, tenant=tenant, ask=ask, residency=residency
        )
        return finished.report

    @property
    def jobs(self) -> Jobs:
        """The durable jobs of the configured database: list, get, result, cancel ..."""
        if self._jobs is None:
            from agentflow.jobs.opening import open_jobs

            self._jobs = open_jobs(self.settings, nudge=self._nudge)
        return self._jobs

    def register(self, name: str, kind: Kind) -> None:
        """Let jobs of a kind of your own be submitted and run here.

        Args:
            name: what ``submit`` calls it.
            kind: an async function of a ``JobContext``; what it returns, as JSON, is the job's output.

        Raises:
            UsageError: jobs are at work already.
        """
        if self._worker is not None:
            raise UsageError(f"Register '{name}' before the first job is submitted.")
        self._kinds[name] = kind

    async def submit(
        self,
        kind: str = "research",
        *,
        query: str,
        sources: Sequence[str | Path] = (),
        budget: Budget | None = None,
        idempotency_key: str | None = None,
        **asked: Any,
    ) -> JobHandle:
        """Submit a durable job: it has an id at once, and goes on through restarts until it has ended.

        With jobs in SQLite this process works on them, as soon as no other one does. With jobs in PostgreSQL
        workers do: ``agentflow worker``.

        Args:
            kind: ``research``, or a kind that was registered.
            query: the question, or what the job is about.
            sources: of a research job: paths of files and folders, and http(s) addresses.
            budget: limits of the job; those of its effort or of the configuration when None.
            idempotency_key: submitting with the same key again gives the same job back.
            asked: every other field of ``JobSpec`` (output, verify, effort, on_limit, deadline, tenant, previous ...)
                and of ``JobSources`` (after, before, include_domains, allow_network ...).

        Returns:
            A handle: ``events()``, ``result()``, ``stop()`` ...

        Raises:
            UsageError: what is asked cannot be.
            JobStoreError: it could not be written down.
        """
        from agentflow.jobs.handle import JobHandle
        from agentflow.jobs.job import JobBudget, JobSources, ask_for, budget_for_job

        on_limit = asked.pop("on_limit", "answer")
        limits = JobBudget(on_limit=on_limit) if budget is None else budget_for_job(budget, on_limit)
        bounds = {name: asked.pop(name) for name in JobSources.model_fields if name in asked}
        where = {"origins": tuple(str(source) for source in sources), **bounds}
        spec = ask_for(kind=kind, query=query, sources=where, budget=limits, **asked)
        await self._work()
        view = await self.jobs.submit(spec, idempotency_key=idempotency_key)
        return JobHandle(self.jobs, view)

    async def _work(self) -> None:
        """Work on this database's jobs, if it is for one process and no other does; else as soon as that one ends."""
        if self._serving is not None or self.settings.jobs.kind != "sqlite":
            return
        await self._report()
        self._serving = asyncio.create_task(self._serve(), name="agentflow jobs")

    async def _report(self) -> None:
        from agentflow.jobs.hiring import open_worker

        worker = open_worker(self.settings, self.runtime, kinds=self._kinds)
        try:
            await worker.start()
        except UsageError as refused:
            _LOG.info("%s", refused)
            await worker.aclose()
        else:
            self._worker = worker

    async def _serve(self) -> None:
        """Work until enough is done; while another process does, look again and again whether it has ended."""
        while not self._enough.is_set():
            worker = self._worker
            if worker is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await self._enough.wait()
                        return
                try:
                    await self._report()
                except AgentflowError as error:
                    _LOG.warning("%s It is tried again.", error)
                continue
            try:
                await worker.serve(self._enough)
            except Exception:
                _LOG.exception("The worker of this process failed; another one goes on.")
            finally:
                self._worker = None
                await worker.aclose()

    def _nudge(self) -> None:
        if self._worker is not None:
            self._worker.nudge()

    async def aclose(self) -> None:
        """Hand unfinished jobs back, and close everything that was opened. Closing twice changes nothing."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.runtime.aclose)
            jobs, self._jobs = self._jobs, None
            if jobs is not None:
                stack.push_async_callback(jobs.aclose)
            serving, self._serving = self._serving, None
            if serving is not None:
                self._enough.set()
                await serving

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
