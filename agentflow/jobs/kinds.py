"""Kinds of jobs: what a worker runs for each, and what a running job is given. Imports runtime and all below.

A kind is an async function of a ``JobContext``. It may run again from its start, on another machine: calls through the
context's chains are answered from the ledger then, what it does with ``once`` is not done again, and everything else
must bear to be repeated.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from pydantic import JsonValue

from agentflow.budget.meter import Meter
from agentflow.budget.money import nano_from_decimal
from agentflow.budget.spend import Quote
from agentflow.cascade.rung import Answer
from agentflow.chain import CallRecord, Chain
from agentflow.errors import UsageError
from agentflow.jobs.job import Artifact, JobSpec, JobState, Role, StopReason
from agentflow.jobs.plain import clean, compact
from agentflow.jobs.store.base import BlobStore
from agentflow.research.earlier import Earlier
from agentflow.research.sources.source import Source
from agentflow.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job came to. ``partial``: it is not all that was asked for, for the reason given."""

    output: JsonValue
    partial: bool = False
    stop_reason: StopReason = StopReason.SATISFIED


class AwaitApproval(Exception):
    """The job ends here for now: a person looks at its plan first. Raised by ``JobContext.planned``."""


class Teller(Protocol):
    """Where a context's events go."""

    def __call__(self, kind: str, data: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> None:
        """Tell of one event; ``changes`` are columns of the job's row."""
        ...


@dataclass(slots=True)
class JobContext:
    """What a job at work holds.

    Args:
        id: the job's.
        spec: what was asked.
        run: which run of the job this is, from 1.
        runtime: rungs and prices.
        meter: the job's node of the budget tree.
        store: where its files go.
        tell: where its events go.
        approved: whether a person has approved its plan.
        plan: its plan, when an earlier run made one or a person gave one.
        earlier: asks for what the job left that this one follows; None when it follows none.
    """

    id: str
    spec: JobSpec
    run: int
    runtime: Runtime
    meter: Meter
    store: BlobStore
    tell: Teller
    approved: bool = False
    plan: tuple[str, ...] | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict[str, Artifact])
    kept: Outcome | None = None
    effects: Chain | None = None
    state: JobState = JobState.PLANNING
    earlier: Callable[[], Awaitable[tuple[Earlier, tuple[Source, ...]]]] | None = None

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell of something that happened; it gets a number once it is written."""
        self.tell(kind, data)

    def enter(self, state: JobState) -> None:
        """Say what the job is at now: planning, running, verifying."""
        if state != self.state:
            self.state = state
            self.tell("state", {"state": str(state)}, {"state": str(state)})

    async def planned(self, plan: tuple[str, ...]) -> tuple[str, ...]:
        """Say what the job means to find out, and wait for leave if it was asked to.

        Returns:
            The plan to follow: the given one, or the one that a person put in its place.

        Raises:
            AwaitApproval: a person has to look at it first. Let it pass: the job is run again once they have.
        """
        if self.approved and self.plan is not None:
            return self.plan
        if self.plan != plan:
            self.plan = plan
            self.tell("plan", {"plan": list(plan)}, {"plan": compact(list(plan))})
        if self.spec.plan_approval and not self.approved:
            raise AwaitApproval
        return plan

    def chain(self, name: str, *, cascade: str = "default", agent: str = "") -> Chain:
        """Open a chain under the job's budget; every attempt is told as an event."""
        return self.runtime.chain(name, parent=self.meter, cascade=cascade, agent=agent, observe=self.attempt)

    async def once(
        self,
        name: str,
        act: Callable[[str, Any], Awaitable[JsonValue]],
        inputs: JsonValue = None,
        *,
        usd: Decimal | str = "0",
        repeatable: bool = False,
    ) -> JsonValue:
        """Do something to the world once, however often the job is run: send a letter, open a ticket, pay.

        Args:
            name: what it is, for reports.
            act: does it. It gets a key, the same in every run and of no other effect, to hand to the other side as its
                idempotency key; and the inputs.
            inputs: what it is given. With the same inputs it is the same effect, with others another.
            usd: dollars that it costs.
            repeatable: it bears to be done again when an earlier run was cut off in the middle of it, because the
                other side knows the key, say.

        Returns:
            What ``act`` gave back, which must be JSON: in this run, or in the earlier one that did it.

        Raises:
            EffectInDoubt: an earlier run was cut off in the middle of it, and it is not ``repeatable``.
            NotDone: ``act`` says so of itself. The job's next try tries again.
            BudgetExceeded: the budget has no room for it. It was not done.

        Example:
            >>> async def send(key: str, letter: dict[str, str]) -> str:
            ...     return await post("https://mail.example.org", letter, idempotency_key=key)
            >>> await context.once("send the letter", send, {"to": "ada@example.org"})       # doctest: +SKIP
        """
        dollars = Decimal(usd)
        if not dollars.is_finite() or dollars < 0:
            raise UsageError(f"'{name}' cannot cost {usd} dollars. Give what it costs, or nothing.")
        nano_usd = nano_from_decimal(dollars)

        async def run(given: tuple[str, Any]) -> Answer:
            return Answer(await act(*given), nano_usd=nano_usd)

        rung = self.runtime.code_rung(name, run, worst=Quote(nano_usd=nano_usd))
        self.effects = self.effects or self.chain("effects")
        return await self.effects.once(rung, inputs, repeatable=repeatable)

    def attempt(self, record: CallRecord) -> None:
        """Tell of an attempt."""
        self.tell("attempt", attempt_facts(record))

    async def save(
        self,
        name: str,
        content: bytes | str,
        media_type: str,
        *,
        role: Role = "artifact",
        facts: Mapping[str, JsonValue] | None = None,
    ) -> Artifact:
        """Keep a file. It is the job's once the run ends; a file of a name that is taken replaces it.

        Raises:
            JobStoreError: it cannot be stored.
        """
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        digest = hashlib.sha256(data).hexdigest()
        await self.store.put(self.id, digest, data)
        saved = Artifact(
            name=clean(name), role=role, media_type=clean(media_type), size=len(data), sha256=digest,
            facts=json.loads(compact(dict(facts or {}))),
        )  # fmt: skip
        self.artifacts[saved.name] = saved
        return saved

    def keep(self, output: JsonValue) -> None:
        """What there is so far: delivered as a partial result if the job is ended early."""
        self.kept = Outcome(output, partial=True)


Kind = Callable[[JobContext], Awaitable["JsonValue | Outcome"]]
Kinds = Mapping[str, Kind]


def load_kinds(named: Mapping[str, str]) -> dict[str, Kind]:
    """The kinds that a configuration names as ``package.module:function``.

    Raises:
        UsageError: there is no such function.
    """
    found: dict[str, Kind] = {}
    for name, place in named.items():
        module, _, function = place.partition(":")
        try:
            found[name] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(
                f"jobs.kinds.{name}: '{place}' cannot be loaded: {error}. Name it as package.module:function."
            ) from error
    return found


def attempt_facts(record: CallRecord) -> dict[str, Any]:
    """An attempt as events tell it: amounts in tokens, nano-dollars, joules and seconds."""
    attempt = record.attempt
    return {
        "chain": record.chain,
        "call": record.call,
        "rung": attempt.rung,
        "kind": attempt.kind,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "replayed": attempt.replayed,
        "tokens": attempt.spend.tokens,
        "nano_usd": attempt.spend.nano_usd,
        "joules": attempt.spend.energy.mean,
        "seconds": attempt.spend.seconds,
    }
