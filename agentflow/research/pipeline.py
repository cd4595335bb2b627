"""The walk of a research job: read, plan, retrieve, synthesise, verify, report. Imports orchestration and this room.

However a job ends (done, out of budget, interrupted) it reports what it has, and what was left undone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentflow.budget.meter import Meter
from agentflow.budget.spend import Quote
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.reply import AnyReply
from agentflow.cascade.rung import Answer, CodeRung, ModelRung
from agentflow.chain import CallRecord, Chain
from agentflow.errors import BudgetExceeded, UsageError
from agentflow.messages import Message, Request
from agentflow.orchestration.agent import Agent
from agentflow.orchestration.library import shipped_agents
from agentflow.orchestration.orchestrator import Orchestrator, TaskState
from agentflow.orchestration.plan import Outcome, Plan, Task
from agentflow.research.assembly import Findings, assemble
from agentflow.research.citations import verify_draft
from agentflow.research.corpus import Corpus
from agentflow.research.depth import AS_CONFIGURED, Depth
from agentflow.research.earlier import Earlier
from agentflow.research.evidence import Draft, Evidence
from agentflow.research.finishing import Finishing
from agentflow.research.indexed import IndexedSource, Shelf, index_of, joined
from agentflow.research.output import JobOutput, Verify
from agentflow.research.planning import Plan as ResearchPlan
from agentflow.research.planning import Planning, heuristic_plan, plan_check, planning_request
from agentflow.research.report import Ending, Report
from agentflow.research.retrieval import Bm25Index, Hit
from agentflow.research.retrieval_rung import make_embedder, retrieval_rung
from agentflow.research.sources import Reading, ReadLimits, Source, estimated_bytes, keep_sources, read_sources
from agentflow.research.sources.scope import ANYTHING, Scope
from agentflow.research.sources.source import MEGABYTE, date_facts
from agentflow.research.synthesis import Synthesis, draft_check, extractive_draft, synthesis_request
from agentflow.runtime import Runtime
from agentflow.telemetry import tracing

Emit = Callable[[str, Mapping[str, Any]], None]
OnPlan = Callable[[tuple[str, ...]], Awaitable[tuple[str, ...]]]
_READER = Agent("sources", "Reads the sources and indexes them.", "")
# A floor of CPU seconds, and so much a megabyte of text.
_READING_CPU_S, _READING_CPU_S_PER_MB = 0.5, 0.6
_LONGEST_QUESTION = 4_000
# A folder may have fifty thousand files: so many are told one by one.
_SOURCES_TOLD = 200


@dataclass(frozen=True, slots=True)
class ResearchTask:
    """What was asked: a question, where to look, what may be read there, how deep to look, what the answer is like.

    ``earlier`` is the job that this one follows; ``kept`` are sources that were read before, for a job without origins.
    """

    question: str
    origins: tuple[str, ...]
    scope: Scope = ANYTHING
    depth: Depth = AS_CONFIGURED
    output: JobOutput = field(default_factory=JobOutput)
    verify: Verify = "quotes"
    earlier: Earlier | None = None
    kept: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a question that is none."""
        if not self.question.strip():
            raise UsageError("The question is empty. Ask something, in quotation marks.")
        if len(self.question) > _LONGEST_QUESTION:
            raise UsageError(
                f"The question has {len(self.question):,} characters; the most is {_LONGEST_QUESTION:,}. "
                "Ask shorter, and give long material as a source."
            )


class ResearchJob:
    """One research job from question to report.

    Args:
        runtime: rungs, prices, ledger.
        meter: the job's node of the budget tree; its name is the job's id.
        emit: told of everything that happens, as (kind, data).
        on_plan: given the sub-questions of the plan; returns those to answer, or raises to end the job there.
        shelf: uploaded files to look in beside the task's origins.
    """

    def __init__(
        self, runtime: Runtime, meter: Meter, emit: Emit, on_plan: OnPlan | None = None, shelf: Shelf | None = None
    ) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.research
        self._meter = meter
        self._emit = emit
        self._on_plan = on_plan
        self._shelf = shelf
        self._orchestrator = Orchestrator(runtime, meter, self._on_call, self._on_task)
        self._agents: Mapping[str, Agent] = shipped_agents()
        self._earlier: Earlier | None = None
        self._depth = AS_CONFIGURED
        self._embedder = None if self._settings.embedder is None else make_embedder(self._settings.embedder)
        self.findings = Findings(job=meter.name)
        self._finishing = Finishing(runtime, self.findings, self, emit, self._agents, self._cascade)

    async def run(self, task: ResearchTask) -> Report:
        """Walk the whole way.

        Returns:
            The report; ``ending`` is set when the budget or an interruption stopped the job early.

        Raises:
            AgentflowError: the sources cannot be read, or a model is configured that cannot serve.
        """
        self.findings.question = task.question
        self._go_to(task.depth)
        self._earlier = task.earlier
        self.findings.output, self.findings.verify = task.output, task.verify
        self._finishing = Finishing(self._runtime, self.findings, self, self._emit, self._agents, self._cascade)
        for agent in ("planner", "synthesis", *self._finishing.agents):
            # A model without a price, or not configured, is told before anything is spent.
            self._runtime.check(self._cascade(agent), self._meter)
        try:
            await self._prepare(task)
            if self._on_plan is not None:
                self.findings.sub_questions = await self._on_plan(self.findings.sub_questions)
            await self._answer()
        except BudgetExceeded as error:
            self.refused(error)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
            message = "Interrupted; this is what was found until then."
            self.findings.ending = Ending(reason="interrupted", message=message, undone=())
            await self._quote_what_is_there()
        finally:
            if self._embedder is not None:
                await self._embedder.aclose()
        self._meter.close()
        return self._report()

    def _report(self) -> Report:
        ending = self.findings.ending
        if ending is not None:
            self.findings.ending = ending.model_copy(update={"undone": self._undone()})
        report = assemble(self.findings, self._meter)
        if report.left_out:
            facts = {"left_out": len(report.left_out), "max_words": report.max_words}
            self._emit("note", {"note": "claims left out", **facts})
        return report

    def _go_to(self, depth: Depth) -> None:
        """Look that deep from here on."""
        self._depth = depth
        if depth.cascade is not None:
            self._agents = {name: replace(agent, cascade=depth.cascade) for name, agent in self._agents.items()}
        models = [rung for rung in self._cascade("synthesis").rungs if isinstance(rung, ModelRung)]
        self._settings = depth.widened(self._settings, [model.context for model in models])

    def _cascade(self, agent: str, code: CodeRung | None = None) -> Cascade:
        """What serves an agent's calls at this depth."""
        return self._runtime.cascade(self._agents[agent].cascade, code, model_rungs=self._depth.model_rungs)

    async def _prepare(self, task: ResearchTask) -> None:
        """Read the sources and plan, side by side."""
        planning = Planning(task.question.strip(), self._settings.sub_questions, task.earlier)
        outcomes = await self._orchestrator.run(
            Plan(
                (
                    Task("sources", _READER, lambda chain, _: self._read(chain, task)),
                    Task("planner", self._agents["planner"], lambda chain, _: self._plan(chain, planning)),
                )
            )
        )
        _raise_any(outcomes)

    async def _answer(self) -> None:
        """Retrieve for every sub-question side by side, then synthesise over all of it."""
        questions = self.findings.sub_questions
        names = tuple(f"retrieval-{number}" for number in range(1, len(questions) + 1))
        tasks = [
            Task(name, self._agents["retrieval"], self._retrieval(question))
            for name, question in zip(names, questions, strict=True)
        ]

        async def synthesise(chain: Chain, found: Mapping[str, Any]) -> None:
            hits = [found.get(name, []) for name in names]
            self._gather(hits)
            await self._synthesise(chain)

        tasks.append(Task("synthesis", self._agents["synthesis"], synthesise, needs=names, last=True))
        tasks += self._finishing.tasks(after="synthesis")
        outcomes = await self._orchestrator.run(Plan(tuple(tasks)))
        _raise_any(outcomes)

    async def _read(self, chain: Chain, task: ResearchTask) -> None:
        names, unread = ((), 0) if self._shelf is None else (self._shelf.names, self._shelf.unread_bytes)
        unread += sum(len(source.text) for source in task.kept)
        size = unread + await asyncio.to_thread(estimated_bytes, task.origins, self._limits())
        rung = self._runtime.code_rung("reader and BM25 index", self._reading, max_cpu_s=reading_cpu_s(size))
        asked = "\n".join((*task.origins, *names)) or "sources that were read before"
        request = Request((Message("user", asked),), inputs=task)
        reply = await chain.call(request, output=object, name="read", cascade=self._runtime.code(rung))
        self.served("reading", chain, reply)

    async def _reading(self, task: ResearchTask) -> Answer:
        room = self._meter.room().seconds
        try:
            async with asyncio.timeout(room):
                reading, kept = await self._sources(task)
                self.findings.reading = reading
                self._tell(reading, kept)
                self.findings.index = await asyncio.to_thread(self._index, reading, kept)
        except TimeoutError:
            # The job's seconds are gone: the meter says so in its own words.
            self._meter.hold(Quote()).release()
            raise
        return Answer(True)

    async def _sources(self, task: ResearchTask) -> tuple[Reading, tuple[IndexedSource, ...]]:
        """Everything there is to look in, and the part of it whose index was kept."""
        uploaded = () if self._shelf is None else await self._shelf.load()
        reading = Reading((), ())
        if task.kept and not task.origins:
            reading = keep_sources(task.kept, task.scope)
        elif task.origins or not uploaded:
            reading = await read_sources(task.origins, limits=self._limits(), scope=task.scope)
        return joined(reading, uploaded, task.scope)

    def _tell(self, reading: Reading, uploaded: Sequence[IndexedSource]) -> None:
        left_out = Counter(skipped.cause for skipped in reading.skipped)
        told = {"sources": len(reading.sources), "skipped": len(reading.skipped), "uploaded": len(uploaded)}
        self._emit("sources.read", {**told, "left_out": dict(left_out)})
        for source in reading.sources[:_SOURCES_TOLD]:
            facts = {"id": source.id, "origin": source.origin, "title": source.title, **date_facts(source.date)}
            self._emit("source", facts)

    def _index(self, reading: Reading, kept: Sequence[IndexedSource]) -> Bm25Index:
        fresh = reading.sources[: len(reading.sources) - len(kept)]
        return index_of(Corpus.build(fresh, chunk_chars=self._settings.chunk_chars), kept)

    async def _plan(self, chain: Chain, planning: Planning) -> None:
        agent = self._agents["planner"]
        code = self._runtime.code_rung("heuristic planner", heuristic_plan, max_cpu_s=0.1)
        with tracing.plan_span("planner"):
            reply = await chain.call(
                planning_request(agent.instructions, planning),
                output=ResearchPlan,
                name="plan",
                checks=(plan_check,),
                cascade=self._cascade("planner", code),
            )
        self.findings.sub_questions = tuple(part.strip() for part in reply.output.sub_questions)
        self.served("planning", chain, reply)

    def _retrieval(self, question: str) -> Callable[[Chain, Mapping[str, Any]], Any]:
        async def retrieve(chain: Chain, _: Mapping[str, Any]) -> list[Hit]:
            index = self.findings.index
            assert index is not None
            rung = retrieval_rung(self._runtime, index, self._settings, self._embedder)
            request = Request((Message("user", question),), inputs=question)
            with tracing.retrieval_span("sources", self._settings.passages):
                reply = await chain.call(request, output=list[Hit], name="retrieve", cascade=self._runtime.code(rung))
            self.served("retrieval", chain, reply)
            return reply.output

        return retrieve

    def _gather(self, hits: list[list[Hit]]) -> None:
        questions, most = self.findings.sub_questions, self._settings.most_passages
        self.findings.evidence = Evidence.gather(self.findings.question, questions, hits, most)

    async def _synthesise(self, chain: Chain, *, code_only: bool = False) -> None:
        evidence, index = self.findings.evidence, self.findings.index
        assert evidence is not None and index is not None
        output = self.findings.output
        task = Synthesis(
            evidence, index.lexicon, self._settings.support, self._settings.answerable,
            max_words=output.max_words, translated=output.language is not None, earlier=self._earlier,
        )  # fmt: skip
        agent = self._agents["synthesis"]
        code = self._runtime.code_rung("extractive synthesiser", extractive_draft, max_cpu_s=1.0)
        # Without a passage there is nothing that a model could read better than code.
        plain = code_only or not evidence.passages
        cascade = self._runtime.code(code) if plain else self._cascade("synthesis", code)
        reply = await chain.call(
            synthesis_request(agent.instructions, task),
            output=Draft,
            name="synthesise",
            checks=(draft_check,),
            cascade=cascade,
        )
        self._emit("verifying", {"claims": len(reply.output.claims)})
        verified = verify_draft(reply.output, evidence, index.lexicon, self._settings.support)
        for claim in verified.claims:
            self._emit("claim", {"text": claim.text, "supported": True, "support": claim.support})
        for refused in verified.unsupported:
            self._emit("claim", {"text": refused.text, "supported": False, "reason": refused.reason})
        if self.findings.verify == "judged":
            # Until a judge has seen them.
            unjudged = tuple(claim.model_copy(update={"judged": False}) for claim in verified.claims)
            verified = replace(verified, claims=unjudged)
        self.findings.verified = verified
        self.served("synthesis", chain, reply)

    async def _quote_what_is_there(self) -> None:
        """After an interruption: code alone answers from the evidence there is, if the budget has room for it."""
        if self.findings.evidence is None or self.findings.verified is not None:
            return
        chain = self._runtime.chain(
            "synthesis-partial", parent=self._meter, observe=self._on_call, agent="synthesis", final=True
        )
        async with chain:
            try:
                await self._synthesise(chain, code_only=True)
            except BudgetExceeded:
                return

    def served(self, step: str, chain: Chain, reply: AnyReply) -> None:
        """Keep which rung served a step, and what its budget left no room for."""
        self.findings.rungs[step] = f"{reply.rung} ({reply.kind})"
        # Only the whole call knows which of its attempts served.
        for place, record in enumerate(self.findings.records):
            if (record.chain, record.call) == (chain.meter.path, reply.call):
                self.findings.records[place] = replace(record, attempt=reply.attempts[record.attempt.number - 1])
        if reply.refusal is not None:
            undone = f"{step} by a {'model' if reply.kind == 'code' else 'dearer'} rung"
            if undone not in self.findings.undone:
                self.findings.undone.append(undone)
            self.refused(reply.refusal)

    def refused(self, error: BudgetExceeded) -> None:
        """A budget left no room for a step: what there is is reported."""
        currency: Any = error.refusal.currency
        if self.findings.ending is None:
            self.findings.ending = Ending(reason="budget", currency=currency, message=str(error), undone=())
        self._emit("budget.refused", {"currency": currency, "message": str(error)})

    def failed(self, message: str) -> None:
        """A step could not be done: what there is is reported."""
        if self.findings.ending is None:
            self.findings.ending = Ending(reason="error", message=message, undone=())
        self._emit("note", {"note": "left undone", "message": message})

    def _undone(self) -> tuple[str, ...]:
        steps = ("reading", "planning", "retrieval", "synthesis")
        missing = (step for step in steps if step not in self.findings.rungs)
        return (*self.findings.undone, *missing, *self._finishing.undone)

    def _limits(self) -> ReadLimits:
        bounds = self._runtime.settings.sources
        return ReadLimits(
            max_file_bytes=int(bounds.max_file_mb * MEGABYTE),
            max_files=bounds.max_files,
            max_page_bytes=int(bounds.max_page_mb * MEGABYTE),
            page_timeout_s=bounds.page_timeout_s,
        )

    def _on_call(self, record: CallRecord) -> None:
        self.findings.records.append(record)
        attempt = record.attempt
        self._emit(
            "attempt",
            {
                "chain": record.chain,
                "call": record.call,
                "rung": attempt.rung,
                "kind": attempt.kind,
                "outcome": attempt.outcome,
                "reason": attempt.reason,
                "tokens": attempt.spend.tokens,
                "nano_usd": attempt.spend.nano_usd,
                "joules": attempt.spend.energy.mean,
                "seconds": attempt.spend.seconds,
            },
        )

    def _on_task(self, task: Task, state: TaskState, meter: Meter) -> None:
        self._emit(f"task.{state}", {"task": task.name, "agent": task.agent.name, "meter": meter.path})


def reading_cpu_s(size: int) -> float:
    """CPU seconds that reading and indexing so many bytes is held for."""
    return _READING_CPU_S + _READING_CPU_S_PER_MB * size / MEGABYTE


def _raise_any(outcomes: Mapping[str, Outcome]) -> None:
    """Raise the first error of a plan; a refused budget only when nothing worse happened, for it has a report."""
    errors = [outcome.error for outcome in outcomes.values() if outcome.error is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, BudgetExceeded)):
        raise error
