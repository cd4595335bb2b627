"""What a job is, to everybody: what was asked (``JobSpec``), how it stands (``JobView``), what happens (``JobEvent``).

Pydantic models, because all of it crosses edges: the database, the command line, HTTP. Imports budget, sources,
research.output.
Next: ``service`` is what is called with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from agentflow.budget.budget import Budget
from agentflow.errors import UsageError
from agentflow.jobs.plain import holds_zero
from agentflow.jobs.sources import JobSources, in_one_line
from agentflow.research.output import JobOutput, Verify

Effort = Literal["auto", "lite", "base", "core", "pro", "ultra"]
OnLimit = Literal["answer", "pause", "fail"]
Role = Literal["result", "source", "artifact"]
KEPT: Final = MappingProxyType({"kept": True})
"""The context in which a JobSpec is read that was submitted long ago, maybe when more was allowed."""


class JobState(StrEnum):
    """Where a job stands. ``ended`` ones change no more, unless they are resumed."""

    QUEUED = "queued"
    """It waits for its time, a free place, or another try after a failure."""
    PLANNING = "planning"
    """A worker reads its sources and plans."""
    RUNNING = "running"
    """A worker is at it."""
    VERIFYING = "verifying"
    """Its claims are being checked."""
    RECOVERING = "recovering"
    """Its worker died or handed over; another will go on, and pay for nothing twice."""
    AWAITING_APPROVAL = "awaiting_approval"
    """Its plan waits for a person: ``approve``."""
    PAUSED_BUDGET = "paused_budget"
    """Its budget is used up, and it was told to wait: ``set_budget``, then ``resume``."""
    COMPLETED = "completed"
    """It has a result; ``stop_reason`` says whether a whole one."""
    FAILED = "failed"
    """It has an error, and a partial result where there is one: ``resume`` tries again."""
    CANCELLED = "cancelled"
    """Somebody cancelled it; what it found is discarded."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself and nobody is waited for."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)

    @property
    def at_work(self) -> bool:
        """Whether a worker has it."""
        return self in (JobState.PLANNING, JobState.RUNNING, JobState.VERIFYING)

    @property
    def moves(self) -> bool:
        """Whether more happens without a person."""
        return not (self.ended or self in (JobState.AWAITING_APPROVAL, JobState.PAUSED_BUDGET))


class StopReason(StrEnum):
    """Why a job stopped."""

    SATISFIED = "satisfied"
    """All that was asked is done."""
    BUDGET_REACHED = "budget_reached"
    """A limit left no room for what was still to do."""
    DEADLINE = "deadline"
    """Its time was up."""
    STOPPED = "stopped"
    """Somebody asked for what there was."""
    NO_NEW_EVIDENCE = "no_new_evidence"
    """The sources do not answer it: looking longer would not help."""
    ERROR = "error"
    """It failed; or, of a completed job, a step that was asked for could not be done."""
    CANCELLED = "cancelled"
    """Somebody cancelled it."""


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is no moment that can be counted") from None


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
# What is counted in millionths fits 63 bits; so many seconds are three centuries.
_Physical = Annotated[float, Field(gt=0, le=9e12, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(gt=0, le=1e10, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class JobBudget(_Part):
    """Limits of one job, and what happens when one leaves no room. None is no limit of its own."""

    usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False, max_digits=18, decimal_places=9)] | None = None
    """Dollars."""
    tokens: int | None = Field(default=None, gt=0, le=10**15)
    """Input and output tokens together."""
    joules: _Physical | None = None
    """Joules."""
    grams_co2e: _Physical | None = None
    """Grams of CO2 equivalent."""
    calls: int | None = Field(default=None, gt=0, le=10**12)
    """Attempts, those of code included."""
    seconds: _Seconds | None = None
    """Wall clock of work; waiting in a queue is not counted."""
    on_limit: OnLimit = "answer"
    """``answer``: end with what there is; ``pause``: wait until the budget is raised; ``fail``: end as failed."""

    def limits(self) -> Budget:
        """The same as the meter takes it."""
        return Budget(
            usd=self.usd, tokens=self.tokens, joules=self.joules, grams_co2e=self.grams_co2e, calls=self.calls,
            seconds=self.seconds,
        )  # fmt: skip


class JobSpec(_Part):
    """What was asked. It is never changed after it was submitted, except its budget.

    Example:
        >>> JobSpec(query="What limits inference?", sources=JobSources(origins=("docs",))).kind
        'research'
    """

    kind: _Name = "research"
    """What runs it: ``research``, or a name that was registered."""
    query: str = Field(min_length=1, max_length=4_000)
    """The question, or what the job is about."""
    input: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """What a kind other than research is given besides."""
    sources: JobSources = JobSources()
    """Where a research job looks."""
    output: JobOutput = JobOutput()
    """How a research job writes its result."""
    verify: Verify = "quotes"
    """How far a research job verifies its claims: ``quotes`` by code alone, ``judged`` by a model besides."""
    effort: Effort = "auto"
    """How much to spend when ``budget`` gives no limit: see ``agentflow.jobs.effort``."""
    budget: JobBudget = JobBudget()
    """Limits of the job."""
    deadline: Moment | None = None
    """When it must have ended; what there is by then is delivered."""
    not_before: Moment | None = None
    """When it may start, at the earliest."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Higher starts sooner. A job gains on the others while it waits, so that none starves."""
    tenant: _Name | None = None
    """Who pays, by its name in the configuration."""
    residency: tuple[_Name, ...] = Field(default=(), max_length=16)
    """All its calls are served in regions with one of these tags; anywhere when empty."""
    queue: _Name = "default"
    """Which queue it waits in; workers serve queues by name."""
    dedup_key: str | None = Field(default=None, min_length=1, max_length=255)
    """While a job of the same tenant and key has not ended, submitting gives that one back."""
    plan_approval: bool = False
    """Wait for a person after planning."""
    previous: str | None = Field(default=None, max_length=64)
    """The job that this one follows, by its id: what it asked and found is given to the planner and to the synthesis,
    and its sources are read where this one names none."""
    metadata: Mapping[str, str] = Field(default_factory=dict[str, str], max_length=32)
    """Yours: kept and given back."""

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> JobSpec:
        if info.context is not KEPT:
            told = self.model_dump(include={"query", "dedup_key", "input", "metadata", "sources"})
            for name in told:
                if holds_zero(told[name]):
                    raise ValueError(f"{name}: holds the character zero")
        if not self.query.strip():
            raise ValueError("query: is empty")
        if self.deadline is not None and self.not_before is not None and self.deadline <= self.not_before:
            raise ValueError("deadline: is not after not_before")
        for name, value in self.metadata.items():
            if len(name) > 64 or len(value) > 512:
                raise ValueError("metadata: a name has at most 64 characters, a value at most 512")
        return self


class JobSpend(_Part):
    """What a job has spent so far, earlier runs of it included, as the ledger has it.

    ``usd`` is an exact decimal as text. ``joules_low`` and ``joules_high`` bound the joules; None while it runs.
    """

    calls: int = 0
    tokens: int = 0
    usd: str = "0"
    joules: float = 0.0
    joules_low: float | None = None
    joules_high: float | None = None
    provenance: Literal["measured", "reported", "modelled"] | None = None
    grams_co2e: float = 0.0
    seconds: float = 0.0
    in_doubt: int = 0


class JobFault(_Part):
    """Why a job failed. ``dead_letter``: it was tried as often as is allowed, and is left for a person."""

    message: str
    retryable: bool = False
    dead_letter: bool = False


class JobView(_Part):
    """How a job stands. Times are UTC; ``events`` is the number of its latest event."""

    id: str
    state: JobState
    stop_reason: StopReason | None = None
    partial: bool = False
    """Its result, if there is one, is not all that was asked for."""
    has_result: bool = False
    error: JobFault | None = None
    spec: JobSpec
    spend: JobSpend = JobSpend()
    plan: tuple[str, ...] | None = None
    """What it means to find out, once it has planned."""
    created: Moment
    started: Moment | None = None
    ended: Moment | None = None
    next_run: Moment | None = None
    """Not before then: a delayed start, or the next try after a failure."""
    runs: int = 0
    """How often a worker has begun it."""
    failures: int = 0
    recoveries: int = 0
    """How often a worker died over it."""
    worker: str | None = None
    events: int = 0


class JobEvent(_Part):
    """One thing that happened to a job. Numbers begin at 1 and have no gaps; each belongs to one event for ever.

    Kinds: ``state``, ``plan``, ``task``, ``attempt``, ``escalation``, ``source``, ``claim``, ``budget``, ``note``.
    ``run`` is which of the job's runs it happened in, 0 outside of one.
    """

    number: int
    time: Moment
    kind: str
    run: int = 0
    data: Mapping[str, Any]


class JobFilter(_Part):
    """Which jobs; what is None or empty does not matter."""

    tenant: str | None = None
    states: tuple[JobState, ...] = ()
    kind: str | None = None
    queue: str | None = None
    dead_letter: bool | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    metadata: Mapping[str, str] = Field(default_factory=dict[str, str])


class JobPage(_Part):
    """Jobs, newest first. ``cursor`` gives the next page; None on the last one."""

    jobs: tuple[JobView, ...]
    cursor: str | None = None


class Artifact(_Part):
    """Something a job made or read, kept under its name. ``facts`` of a source: origin, title, media type ..."""

    name: str
    role: Role
    media_type: str
    size: int
    sha256: str
    facts: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class JobResult(_Part):
    """What a job found.

    ``output`` of a research job is its report (``agentflow.Report``) as data, or as Markdown where its format is
    ``text``, or what its JSON schema describes. ``basis`` is set with the last one alone: for each leaf, by its JSON
    pointer, the ids of the claims it comes from.
    """

    id: str
    state: JobState
    stop_reason: StopReason | None
    partial: bool
    output: JsonValue
    basis: Mapping[str, tuple[str, ...]] | None = None


class QueueStatistics(_Part):
    """One queue at this moment; ``oldest_s`` is how long the longest waiting job that may start has waited."""

    queue: str
    waiting: int
    at_work: int
    oldest_s: float | None = None


class JobStatistics(_Part):
    """All queues, and the workers that are alive."""

    queues: tuple[QueueStatistics, ...]
    workers: tuple[str, ...]


def ask_for(**asked: Any) -> JobSpec:
    """A JobSpec of these fields; the same as calling it, with a fault told in one line.

    Raises:
        UsageError: a field is missing, unknown, or cannot be.
    """
    try:
        return JobSpec(**asked)
    except ValidationError as error:
        raise UsageError(f"The job cannot be: {in_one_line(error)}.") from error


def budget_for_job(budget: Budget, on_limit: OnLimit = "answer") -> JobBudget:
    """A budget of the SDK as a job's.

    Raises:
        UsageError: it is for a period: that is a tenant's.
    """
    if budget.per is not None:
        raise UsageError(f"A job cannot have a budget per {budget.per}. Give it limits of its own.")
    return JobBudget(
        usd=None if budget.usd is None else Decimal(str(budget.usd)), tokens=budget.tokens, joules=budget.joules,
        grams_co2e=budget.grams_co2e, calls=budget.calls, seconds=budget.seconds, on_limit=on_limit,
    )  # fmt: skip
