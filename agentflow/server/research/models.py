"""What crosses the wire: requests, views, pages. The client uses the same. Imports jobs.job; no web framework."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from agentflow.jobs.job import (
    Effort,
    JobBudget,
    JobEvent,
    JobFault,
    JobSpec,
    JobSpend,
    JobState,
    JobView,
    Moment,
    StopReason,
)
from agentflow.jobs.sources import JobSources, SourceBounds
from agentflow.research.output import JobOutput, Verify

MOST_URLS: Final = 200
MOST_IN_BATCH: Final = 100


def _address(value: str) -> str:
    """Accept http(s) addresses without a password, a space or a control character in them."""
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in value):
        raise ValueError("holds a space or a control character")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("is not an address") from error
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("is not an http:// or https:// address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("names a user or a password, which an address here may not")
    return value


def _writable(value: object) -> object:
    """Refuse what no database can keep: NUL, and halves of characters."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("holds a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("holds half of a character (a lone surrogate)") from error
    return value


Url = Annotated[str, Field(min_length=8, max_length=4_096), AfterValidator(_address)]
Words = Annotated[str, BeforeValidator(_writable)]
_Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
_Metadata = Annotated[dict[Words, Words], Field(max_length=32)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SourcesRequest(SourceBounds):
    """Where the job looks, and what may be read there. Nothing else is read."""

    urls: tuple[Url, ...] = Field(default=(), max_length=MOST_URLS)
    """Pages and documents on the web; those of private networks are refused."""
    paths: tuple[Annotated[Words, Field(min_length=1, max_length=4_096)], ...] = Field(default=(), max_length=MOST_URLS)
    """Files and folders of the server's machine, where ``server.allow_paths`` is set."""
    collections: tuple[_Id, ...] = Field(default=(), max_length=20)
    """Collections of uploaded files, by their ids."""

    @model_validator(mode="after")
    def _agree(self) -> SourcesRequest:
        self.refuse_pages("urls", self.urls)
        return self


class PlanRequest(_Part):
    """What happens after planning."""

    approve: bool = False
    """Wait until ``POST .../approve`` lets the job go on, with its plan or another."""


class WebhookRequest(_Part):
    """Whom to tell when the job ends or waits for a person."""

    url: Url
    """It is sent a signed message (Standard Webhooks); private networks are refused."""


class ResearchRequest(_Part):
    """A question, where to look, and what it may cost."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "example": {
                "query": "How high does the tide rise in the Bay of Fundy?",
                "effort": "base",
                "budget": {"usd": "0.05", "joules": 20000, "on_limit": "answer"},
                "sources": {"urls": ["https://example.org/tides"], "collections": []},
                "metadata": {"ticket": "4711"},
            }
        },
    )

    query: Words = Field(min_length=1, max_length=4_000)
    """The question."""
    effort: Effort = "auto"
    """How much may be spent where ``budget`` says nothing."""
    budget: JobBudget = JobBudget()
    """Limits of the job, never overspent."""
    output: JobOutput = JobOutput()
    """How the result is written."""
    sources: SourcesRequest = SourcesRequest()
    """Where to look."""
    verify: Verify = "quotes"
    """``quotes``: code checks every claim against verbatim spans of stored sources; ``judged``: a model does, too."""
    plan: PlanRequest = PlanRequest()
    """What happens after planning."""
    previous_id: _Id | None = None
    """The job that this one follows: what it found is given to this one as material, and its sources are read where
    ``sources`` names none."""
    metadata: _Metadata = Field(default_factory=dict[str, str])
    """Yours: kept, given back, and filtered by. Names up to 64 characters, values up to 512."""
    webhook: WebhookRequest | None = None
    """Whom to tell when it ends."""
    deferrable_until: Moment | None = None
    """It need not start before then."""
    deadline: Moment | None = None
    """When it must have ended; what there is by then is delivered."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Higher starts sooner."""

    @model_validator(mode="after")
    def _can_be(self) -> ResearchRequest:
        if not self.query.strip():
            raise ValueError("query: is empty")
        # What jobs themselves ask for is told here, as a field of this request.
        self.spec(None, (), allow_private=False)
        return self

    def spec(self, tenant: str | None, origins: tuple[str, ...], *, allow_private: bool) -> JobSpec:
        """The job that this asks for.

        Args:
            tenant: who pays.
            origins: every source but collections, as workers read them.
            allow_private: whether pages of private networks may be fetched.
        """
        bounds = {name: getattr(self.sources, name) for name in SourceBounds.model_fields}
        return JobSpec(
            query=self.query, output=self.output, verify=self.verify, effort=self.effort, budget=self.budget,
            tenant=tenant, priority=self.priority,
            sources=JobSources(
                origins=origins, collections=self.sources.collections, allow_private=allow_private, **bounds
            ),
            plan_approval=self.plan.approve,
            previous=self.previous_id, metadata=self.metadata, not_before=self.deferrable_until,
            deadline=self.deadline, input={"request": asked_for(self)},
        )  # fmt: skip


def asked_for(request: ResearchRequest) -> dict[str, JsonValue]:
    """A request as its job keeps it."""
    return request.model_dump(mode="json", exclude_defaults=True)


def asked(job: JobView) -> dict[str, Any]:
    """The request that a job was submitted with."""
    kept: Any = job.spec.input.get("request")
    return cast("dict[str, Any]", kept) if isinstance(kept, dict) else {}


class Urls(_Part):
    """Where everything about a job is, relative to the server."""

    self: str
    result: str
    events: str
    sources: str
    claims: str
    spend: str
    report_md: str
    report_html: str


class Submitted(_Part):
    """A job that was accepted. It is never lost from here on."""

    id: str
    status: JobState
    urls: Urls
    poll_after: float | None = Field(description="seconds after which asking again makes sense; None: it has ended")


class ResearchView(Submitted):
    """How a job stands."""

    object: Literal["research"] = "research"
    stop_reason: StopReason | None = None
    partial: bool = False
    has_result: bool = False
    error: JobFault | None = None
    query: str
    effort: Effort
    budget: JobBudget
    spend: JobSpend
    plan: tuple[str, ...] | None = None
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    next_run: datetime | None = None
    runs: int
    failures: int
    recoveries: int
    events: int = Field(description="number of the latest event")
    previous_id: str | None = None
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, job: JobView) -> ResearchView:
        """A job as clients see it."""
        spec = job.spec
        return cls(
            id=job.id, status=job.state, urls=urls_of(job.id), poll_after=poll_after(job.state),
            stop_reason=job.stop_reason, partial=job.partial, has_result=job.has_result, error=job.error,
            query=spec.query, effort=spec.effort, budget=spec.budget, spend=job.spend, plan=job.plan,
            created=job.created, started=job.started, ended=job.ended, next_run=job.next_run, runs=job.runs,
            failures=job.failures, recoveries=job.recoveries, events=job.events, previous_id=spec.previous,
            metadata=spec.metadata,
        )  # fmt: skip


class ResearchPage(_Part):
    """Jobs, newest first. ``cursor`` gives the next page; None on the last one."""

    data: tuple[ResearchView, ...]
    cursor: str | None = None


class ResearchResult(_Part):
    """What a job found.

    ``output`` is its report (``agentflow.Report``), or Markdown if ``text`` was asked for, or what the request's JSON
    schema describes: then ``basis`` has, for each leaf by its JSON pointer, the ids of the claims it comes from.
    """

    id: str
    status: JobState
    stop_reason: StopReason | None
    partial: bool
    output: JsonValue
    basis: Mapping[str, tuple[str, ...]] | None = None


class EventPage(_Part):
    """Events after a number. ``cursor`` is where to go on; ``ended``: there will be no more."""

    data: tuple[JobEvent, ...]
    cursor: int
    ended: bool


class SourceView(_Part):
    """One source that a job read."""

    id: str
    origin: str
    title: str
    media_type: str
    size: int
    sha256: str
    read_at: str
    date: str | None = Field(default=None, description="day of the source; null where nothing tells one")
    date_from: str | None = Field(
        default=None,
        description="what tells the day: `page` (its markup), `document` (its own facts), `server` (Last-Modified) or "
        "`file` (when it was last changed; of an upload, when it came)",
    )
    text: str = Field(description="where its stored text is, relative to the server")


class SpendView(_Part):
    """What a job has spent, against what it may."""

    id: str
    status: JobState
    budget: JobBudget
    spend: JobSpend
    meter: JsonValue = Field(default=None, description="the whole bill with every attempt, once there is a result")


class PlanChoice(_Part):
    """Leave for a job to go on: with its own plan, or with this one."""

    plan: tuple[Annotated[Words, Field(min_length=1, max_length=1_000)], ...] | None = Field(None, max_length=50)


class BatchRequest(_Part):
    """Many jobs at once; each is accepted or refused by itself."""

    requests: tuple[ResearchRequest, ...] = Field(min_length=1, max_length=MOST_IN_BATCH)


class BatchItem(_Part):
    """One of them: a job, or a problem."""

    job: Submitted | None = None
    problem: JsonValue = None


class BatchView(_Part):
    """All of them, in the order of the request."""

    data: tuple[BatchItem, ...]


class Range(_Part):
    """The middle and the 90th percentile of what a job may use."""

    p50: float
    p90: float


class EstimateError(_Part):
    """How far estimates were off for the jobs that ran: each estimated from the others, then compared."""

    jobs: int
    median: float = Field(description="the middle of |estimate - spent| / spent, by tokens, or joules without tokens")
    within_p90: float = Field(description="the share that spent no more than the p90 said")


class Estimate(_Part):
    """What a job would cost. No model was asked."""

    tokens: Range
    usd: Range
    joules: Range
    seconds: Range
    basis: Literal["configuration", "history"] = Field(
        description="the prices and profiles of the rungs alone, or those scaled by the jobs that ran"
    )
    error: EstimateError | None = Field(default=None, description="None while too few jobs have ended")


def urls_of(id: str) -> Urls:
    """Where everything about a job is."""
    base = f"/v1/research/{id}"
    return Urls(
        self=base, result=f"{base}/result", events=f"{base}/events", sources=f"{base}/sources",
        claims=f"{base}/claims", spend=f"{base}/spend", report_md=f"{base}/report.md",
        report_html=f"{base}/report.html",
    )  # fmt: skip


def poll_after(state: JobState) -> float | None:
    """Seconds after which asking again makes sense."""
    if state.ended:
        return None
    return 1.0 if state.at_work else 5.0 if state is not JobState.QUEUED else 2.0
