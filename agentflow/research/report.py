"""The report of a research job, as data: the shape of report.json.

Pydantic models, because this is an edge: the JSON schema generated from ``Report`` is published in the
documentation. Rendering for people lives in ``agentflow.research.rendering``. Imports output.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agentflow.research.output import CitationStyle

NOT_ANSWERED = "The sources do not answer this."


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Citation(_Part):
    """A verbatim span of a stored source: ``text[start:end] == quote``, characters, end excluded."""

    source_id: str
    start: int = Field(ge=0, description="first character of the span in the stored text")
    end: int = Field(gt=0, description="one past the last character of the span")
    quote: str = Field(min_length=1, description="the span itself, byte for byte")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the whole stored text, UTF-8")


class Claim(_Part):
    """One statement with the citations that carry it. ``support`` is the share of its weight found in them."""

    text: str
    citations: tuple[Citation, ...]
    question: int = Field(ge=0, description="index into the report's sub-questions")
    support: float = Field(ge=0, le=1, description="IDF-weighted share of the claim's terms found in the cited spans")
    id: str = Field(default="", description="its name in this report: c1, c2 ...")
    original: str | None = Field(default=None, description="as it was verified, where ``text`` is a translation of it")
    judged: bool | None = Field(
        default=None, description="whether a model judged it too; None: it was not asked to, False: it could not"
    )


class Unsupported(_Part):
    """A statement that failed verification, and why. Never to be read as supported."""

    text: str
    reason: str


class SourceEntry(_Part):
    """One source as it was read. ``file`` is its stored text, relative to the run folder."""

    id: str
    origin: str
    title: str
    sha256: str
    read_at: str = Field(description="ISO 8601, UTC")
    media_type: str
    characters: int
    file: str
    date: str | None = Field(default=None, description="ISO 8601 day of the source; None where nothing tells one")
    date_from: Literal["page", "document", "server", "file"] | None = Field(
        default=None, description="what tells the day: markup, the document's facts, Last-Modified, the file's change"
    )


class SkippedSource(_Part):
    """A source that was found but not read, and why."""

    origin: str
    reason: str
    cause: Literal["unreadable", "double", "date", "undated", "domain"] = "unreadable"


class SubQuestion(_Part):
    """One part of the question. ``answered`` says whether at least one claim stands under it."""

    text: str
    answered: bool


class EnergyFigure(_Part):
    """Joules with their 90 % interval and where they come from."""

    mean: float
    low: float
    high: float
    provenance: Literal["measured", "reported", "modelled"]


class MeterLine(_Part):
    """What one node of the budget tree spent. ``usd`` is an exact decimal, written as text."""

    node: str
    calls: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    usd: str
    joules: EnergyFigure
    grams_co2e: float = Field(default=0.0, description="grams of CO2 equivalent, by the grid's yearly average")
    seconds: float = Field(description="wall clock of this node; parallel children overlap")
    in_doubt_calls: int = Field(description="calls charged at their worst case because their true cost is unknown")
    estimated_calls: int = Field(default=0, description="calls whose tokens we counted, because the reply did not say")
    overruns: int = Field(default=0, description="calls that came back dearer than what was held for them")


class Limit(_Part):
    """One limit of the job's budget, and what was used of it, in the currency's own unit."""

    currency: Literal["tokens", "usd", "joules", "grams_co2e", "calls", "seconds"]
    limit: str
    spent: str


class AttemptEnergy(_Part):
    """What one attempt's joules were found from: ``agentflow energy explain`` derives them again."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    mean: float
    low: float
    high: float
    provenance: Literal["measured", "reported", "modelled"]
    scope: Literal["board", "server", "facility"]
    assumed: tuple[str, ...]
    basis: dict[str, float] = Field(description="what was known besides the tokens: cpu_s, token_s or step_s, batch")


class AttemptLine(_Part):
    """One rung that tried one call."""

    call: str
    rung: str
    kind: Literal["code", "model"]
    served: bool = Field(description="whether this attempt's reply was used")
    verdict: str = Field(description="'accepted', or why it was not enough")
    confidence: float | None
    tokens: int
    usd: str
    joules: float
    seconds: float
    energy: AttemptEnergy | None = Field(default=None, description="None in reports of before it was kept")


class Ending(_Part):
    """Why the job stopped before its end, and what was left undone."""

    reason: Literal["budget", "interrupted", "error"]
    currency: Literal["tokens", "usd", "joules", "grams_co2e", "calls", "seconds"] | None = None
    message: str
    undone: tuple[str, ...]


class Meter(_Part):
    """The bill: the job's total, its parts, its limits and every attempt."""

    total: MeterLine
    parts: tuple[MeterLine, ...]
    limits: tuple[Limit, ...]
    attempts: tuple[AttemptLine, ...]


class Report(_Part):
    """A research report. ``answered`` is False when the sources do not answer the question."""

    schema_version: Literal["1"] = "1"
    job: str
    question: str
    answered: bool
    sub_questions: tuple[SubQuestion, ...]
    claims: tuple[Claim, ...]
    unsupported: tuple[Unsupported, ...]
    sources: tuple[SourceEntry, ...] = Field(description="the sources that claims cite")
    sources_read: int
    skipped: tuple[SkippedSource, ...]
    rungs: dict[str, str] = Field(
        description="which rung served each step, e.g. {'planning': 'heuristic planner (code)'}"
    )
    meter: Meter
    created: str = Field(description="ISO 8601, UTC")
    ending: Ending | None = Field(default=None, description="set when the job stopped before its end")
    language: str | None = Field(
        default=None, description="the language the claims were put into; None: their sources'"
    )
    max_words: int | None = Field(default=None, description="the most words that the claims were to have together")
    left_out: tuple[Claim, ...] = Field(default=(), description="claims that stand, left out to keep to ``max_words``")
    citation_style: CitationStyle = "numbers"
    data: JsonValue = Field(default=None, description="what the JSON schema of the request describes, once filled")
    basis: dict[str, tuple[str, ...]] | None = Field(
        default=None, description="for each leaf of ``data``, by its JSON pointer, the ids of its claims"
    )
