"""Flow: the one object an app builder holds. Opens chains, runs jobs, closes what it opened.

On a floor of its own above jobs, because it runs them. Imports jobs, runtime, config.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from agentflow.backends.base import Backend
from agentflow.budget.admission import Admission
from agentflow.budget.budget import Budget
from agentflow.budget.events import Ask
from agentflow.chain import Chain
from agentflow.config import Settings, load_settings
from agentflow.jobs.research import run_research
from agentflow.jobs.runs import RunStore
from agentflow.research.embedders import Embedder
from agentflow.research.pipeline import ResearchTask
from agentflow.research.report import Report
from agentflow.runtime import Runtime, budget_of


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
        self._embedder: Embedder | None = None
        facts = self.settings.research.embedder
        if facts is not None:
            from agentflow.research.retrieval_rung import embedding_rung, make_embedder

            self._embedder = make_embedder(facts)
            self.runtime.embedding = embedding_rung(self.runtime, facts, self._embedder)
        self.runs = RunStore(self.settings.stores.runs)

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
        allow_private: bool = False,
        tenant: str | None = None,
        ask: Ask | None = None,
        residency: Collection[str] | None = None,
    ) -> Report:
        """Answer a question from sources, every claim with verified citations.

        Args:
            question: what you want to know.
            sources: paths of files and folders, and http(s) addresses.
            budget: limits of the job; those of the configuration when None.
            allow_private: fetch pages from private addresses too.
            tenant: who pays, by its name in the configuration.
            ask: asked when a call does not fit a budget with ``on_exceed="ask"``; returns what to raise, or None.
            residency: every call of the job is served in regions with one of these tags, as in ``{"eu"}``.

        Returns:
            The report. Its run folder is ``flow.runs.run(report.job)``. A budget that ends the job early is no
            error: ``report.ending`` says which limit it was and what was left undone.

        Raises:
            SourceError: a source cannot be read.
            UsageError: the question is empty, or there is no such tenant.
        """
        task = ResearchTask(question, tuple(str(source) for source in sources), allow_private)
        limits = budget or budget_of(self.settings.budget)
        finished = await run_research(self.runtime, task, limits, tenant=tenant, ask=ask, residency=residency)
        return finished.report

    async def aclose(self) -> None:
        """Close every backend that was opened. Closing twice changes nothing."""
        async with contextlib.AsyncExitStack() as stack:
            if self._embedder is not None:
                stack.push_async_callback(self._embedder.aclose)
            stack.push_async_callback(self.runtime.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
