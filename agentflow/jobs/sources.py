"""Where a research job looks, as it crosses edges: the database, the command line, HTTP. Imports the sources room.

``SourceBounds`` is what a request over HTTP and a job share; the worker reads by the ``Scope`` made of it.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from agentflow.errors import FetchRefused, UsageError
from agentflow.research.sources.scope import Scope
from agentflow.research.sources.source import is_page

MOST_ORIGINS: Final = 1_000
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _day(value: object) -> object:
    """Accept a day alone: a moment has one for some people and another for others."""
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    if isinstance(value, str) and _DAY.fullmatch(value):
        return value
    raise ValueError("is not a day, as in 2026-01-31")


Day = Annotated[date, BeforeValidator(_day)]
Domain = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.-]+$")]


class SourceBounds(BaseModel):
    """What may be read of what a job names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    include_domains: tuple[Domain, ...] = Field(default=(), max_length=200)
    """Only pages of these domains and those below them, redirects included; any when empty."""
    exclude_domains: tuple[Domain, ...] = Field(default=(), max_length=200)
    """No pages of these domains, nor of those below them, redirects included."""
    allow_network: bool = True
    """False: the job fetches no page."""
    after: Day | None = None
    """Only sources of this day or later, as in 2026-01-31."""
    before: Day | None = None
    """Only sources of this day or earlier."""
    undated: Literal["skip", "keep"] = "skip"
    """With ``after`` or ``before``: what happens to sources that nothing gives a day."""

    @model_validator(mode="after")
    def _span_is_one(self) -> Self:
        if self.after is not None and self.before is not None and self.after > self.before:
            raise ValueError("after: is later than before")
        return self

    def scope(self, *, allow_private: bool = False) -> Scope:
        """The same as reading takes it."""
        return Scope(
            include_domains=self.include_domains, exclude_domains=self.exclude_domains, after=self.after,
            before=self.before, undated=self.undated, allow_network=self.allow_network, allow_private=allow_private,
        )  # fmt: skip

    def refuse_pages(self, field: str, addresses: tuple[str, ...]) -> None:
        """Refuse addresses that these bounds forbid.

        Raises:
            ValueError: one of them is; the message names the field.
        """
        if addresses and not self.allow_network:
            raise ValueError(f"{field}: names pages, but allow_network is false")
        for address in addresses:
            try:
                self.scope().check(address)
            except FetchRefused as refused:
                raise ValueError(f"{field}: one {str(refused).rstrip('.')}") from refused


class JobSources(SourceBounds):
    """Where a research job looks."""

    origins: tuple[Annotated[str, Field(min_length=1, max_length=4_096)], ...] = Field(
        default=(), max_length=MOST_ORIGINS
    )
    """Paths of files and folders, and http(s) addresses."""
    collections: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=20)
    """Collections of the tenant's uploaded files, by their ids; they are read as they are when the job starts."""
    allow_private: bool = False
    """Fetch pages from private addresses too."""

    @property
    def named(self) -> bool:
        """Whether it names anything to look in."""
        return bool(self.origins or self.collections)

    @model_validator(mode="after")
    def _pages_may_be_read(self) -> Self:
        self.refuse_pages("origins", tuple(origin for origin in self.origins if is_page(origin)))
        return self


def bounds_for(**given: Any) -> SourceBounds:
    """Bounds of these fields; the same as calling SourceBounds, with a fault told in one line.

    Raises:
        UsageError: a field cannot be.
    """
    try:
        return SourceBounds(**given)
    except ValidationError as error:
        raise UsageError(f"The sources cannot be bounded so: {in_one_line(error)}.") from error


def in_one_line(error: ValidationError) -> str:
    """The first fault of several, with its place."""
    fault = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{f'{place}: ' if place else ''}{message}"
