"""Finishing: what is done with verified claims before they are reported: judging, translation, shaping.

Each is a task of an agent of its own, after the synthesis, and none of them may lose what is there: one that cannot be
done is left undone, and the report says so. Imports orchestration and this room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from pydantic import JsonValue

from agentflow.cascade.cascade import Cascade
from agentflow.cascade.reply import AnyReply
from agentflow.cascade.rung import CodeRung
from agentflow.chain import Chain
from agentflow.errors import BudgetExceeded, CallFailed, ContextOverflow, NotServed, RunError, UsageError
from agentflow.orchestration.agent import Agent
from agentflow.orchestration.plan import Task
from agentflow.research import languages
from agentflow.research.assembly import Findings
from agentflow.research.citations import Verified
from agentflow.research.grounding import Ground
from agentflow.research.json_schema import named_values
from agentflow.research.judging import Judgement, judgement_check, judging_request, refused
from agentflow.research.report import Claim
from agentflow.research.shaping import Shaping, shape_check, shaping_request
from agentflow.research.translation import (
    Translated,
    Translation,
    as_they_are,
    translation_check,
    translation_request,
)
from agentflow.runtime import Runtime

Emit = Callable[[str, Mapping[str, Any]], None]


class Serving(Protocol):
    """What serves an agent's calls in this job."""

    def __call__(self, agent: str, code: CodeRung | None = None) -> Cascade:
        """The cascade of an agent, by its name."""
        ...


Work = Callable[[Chain, tuple[Claim, ...]], Awaitable[None]]


class Teller(Protocol):
    """Who is told how each step went."""

    def served(self, step: str, chain: Chain, reply: AnyReply) -> None:
        """A call of the step was answered."""
        ...

    def refused(self, error: BudgetExceeded) -> None:
        """A budget left no room for it."""
        ...

    def failed(self, message: str) -> None:
        """It could not be done, for another reason."""
        ...


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    work: Work
    needs_claims: bool = True


class Finishing:
    """The steps that a job asks for, as tasks of its plan.

    Args:
        runtime: rungs and cascades.
        findings: what the job has so far: its claims are replaced as the steps go.
        tell: told how each step went.
        emit: told of every claim that was judged.
        agents: who does the steps, by their names.
        cascade: what serves an agent's calls, with a code rung where there is one.
    """

    def __init__(
        self,
        runtime: Runtime,
        findings: Findings,
        tell: Teller,
        emit: Emit,
        agents: Mapping[str, Agent],
        cascade: Serving,
    ) -> None:
        self._runtime = runtime
        self._findings = findings
        self._tell = tell
        self._emit = emit
        self._agents = agents
        self._cascade = cascade
        self._done: set[str] = set()
        output = findings.output
        self._steps = [
            step
            for asked, step in (
                (findings.verify == "judged", _Step("verification", self._judge)),
                (output.language is not None, _Step("translation", self._translate)),
                (output.json_schema is not None, _Step("shaping", self._shape, needs_claims=False)),
            )
            if asked
        ]

    @property
    def agents(self) -> tuple[str, ...]:
        """Whose cascades are asked: each step has the name of its agent."""
        return tuple(step.name for step in self._steps)

    @property
    def undone(self) -> tuple[str, ...]:
        """The steps that were asked for and not done to their end."""
        verified = self._findings.verified
        idle = verified is not None and not verified.claims
        return tuple(
            step.name for step in self._steps if step.name not in self._done and not (idle and step.needs_claims)
        )

    def tasks(self, after: str) -> list[Task]:
        """The steps, one after the other, after the task of this name."""
        tasks: list[Task] = []
        for step in self._steps:
            tasks.append(Task(step.name, self._agents[step.name], self._run(step), needs=(after,), last=True))
            after = step.name
        return tasks

    def _run(self, step: _Step) -> Callable[[Chain, Mapping[str, Any]], Awaitable[None]]:
        async def run(chain: Chain, _: Mapping[str, Any]) -> None:
            verified = self._findings.verified
            if verified is None or (step.needs_claims and not verified.claims):
                return
            try:
                await step.work(chain, verified.claims)
            except BudgetExceeded as refusal:
                self._tell.refused(refusal)
            except (CallFailed, ContextOverflow, NotServed) as error:
                self._tell.failed(str(error))
            else:
                self._done.add(step.name)

        return run

    async def _judge(self, chain: Chain, claims: tuple[Claim, ...]) -> None:
        """Every claim against its quotes, by a model.

        One after the other: side by side each would hold its worst case, and a budget with room for all refuse some.
        """
        chain.expect(len(claims))
        said: dict[str, Judgement] = {}
        failures: list[RunError | UsageError] = []
        agent = self._agents["verification"]
        try:
            for claim in claims:
                try:
                    reply = await chain.call(
                        judging_request(agent.instructions, claim),
                        output=Judgement,
                        name=f"judge-{claim.id}",
                        checks=(judgement_check,),
                        cascade=self._cascade("verification"),
                    )
                except (CallFailed, ContextOverflow, NotServed) as error:
                    failures.append(error)
                    continue
                said[claim.id] = reply.output
                self._tell.served("verification", chain, reply)
        finally:
            self._keep(said)
        if failures:
            raise CallFailed(f"{len(failures)} of {len(claims)} claims could not be judged. {failures[0]}")

    def _keep(self, said: Mapping[str, Judgement]) -> None:
        """Claims that were judged, those that no judge has seen, and those that a judge refused."""
        verified = self._findings.verified
        assert verified is not None
        stand: list[Claim] = []
        unsupported = list(verified.unsupported)
        for claim in verified.claims:
            judgement = said.get(claim.id)
            if judgement is None or judgement.verdict == "states":
                stand.append(claim.model_copy(update={"judged": judgement is not None}))
                if judgement is not None:
                    self._emit("claim", {"text": claim.text, "supported": True, "judged": True})
            else:
                unsupported.append(refused(claim, judgement))
                reason = unsupported[-1].reason
                self._emit("claim", {"text": claim.text, "supported": False, "judged": True, "reason": reason})
        self._findings.verified = Verified(tuple(stand), tuple(unsupported))

    async def _translate(self, chain: Chain, claims: tuple[Claim, ...]) -> None:
        language, verified = self._findings.output.language, self._findings.verified
        assert language is not None and verified is not None
        agent = self._agents["translation"]
        task = Translation(tuple(claim.text for claim in claims), language)
        code = self._runtime.code_rung("language detector", as_they_are, max_cpu_s=1.0, threaded=True)
        cascade = self._cascade("translation", code)
        if code not in cascade.rungs:
            # The check needs the detector all the same, and the event loop is not to wait for it.
            await asyncio.to_thread(languages.detectable, language)
        reply = await chain.call(
            translation_request(agent.instructions, task),
            output=Translated,
            name="translate",
            checks=(translation_check,),
            cascade=cascade,
        )
        self._tell.served("translation", chain, reply)
        self._findings.language = language
        self._findings.verified = Verified(tuple(map(_put, claims, reply.output.claims)), verified.unsupported)

    async def _shape(self, chain: Chain, claims: tuple[Claim, ...]) -> None:
        if not claims:
            raise CallFailed("The sources do not answer the question, so there is nothing to fill the form from.")
        schema, index = self._findings.output.json_schema, self._findings.index
        assert schema is not None and index is not None
        support = self._runtime.settings.research.support
        ground = Ground(claims, named_values(schema), index.lexicon, support)
        agent = self._agents["shaping"]
        reply = await chain.call(
            shaping_request(agent.instructions, Shaping(self._findings.question, schema, ground)),
            output=object,
            name="shape",
            checks=(shape_check,),
            cascade=self._cascade("shaping"),
        )
        self._tell.served("shaping", chain, reply)
        data = cast("JsonValue", reply.output)
        self._findings.data, self._findings.basis = data, ground.basis(data)


def _put(claim: Claim, text: str) -> Claim:
    text = " ".join(text.split())
    return claim if text == claim.text else claim.model_copy(update={"text": text, "original": claim.text})
