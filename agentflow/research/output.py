"""What a research job's result is to be like: its form, its language, its length, how far its claims are verified.

One pydantic part, because jobs, the HTTP API, the command line and the SDK all ask with it. Imports json_schema,
languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from agentflow.research.json_schema import checked_schema
from agentflow.research.languages import checked_tag

CitationStyle = Literal["numbers", "footnotes", "links"]
Verify = Literal["quotes", "judged"]
LanguageTag = Annotated[str, Field(min_length=2, max_length=35), AfterValidator(checked_tag)]
JsonSchema = Annotated[Mapping[str, JsonValue], AfterValidator(checked_schema)]


class JobOutput(BaseModel):
    """How the result is written.

    Example:
        >>> JobOutput(language="de-ch", max_words=120).language
        'de-CH'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal["json", "text"] = "json"
    """``json``: the report as data, or what ``json_schema`` describes; ``text``: the report as Markdown."""
    json_schema: JsonSchema | None = None
    """A JSON Schema that the result has: it is filled from the verified claims, and each of its leaves is checked."""
    language: LanguageTag | None = None
    """A BCP 47 tag, as ``de`` or ``pt-BR``: the verified claims are translated. As the sources have it when None."""
    max_words: int | None = Field(default=None, ge=1, le=1_000_000)
    """The most words of the answer's claims. Whole claims are left out from the end, and stay among the claims."""
    citations: CitationStyle = "numbers"
    """Of the Markdown and the page: ``numbers`` and a list, ``footnotes``, or ``links`` to where the source is."""

    @model_validator(mode="after")
    def _agree(self) -> JobOutput:
        if self.json_schema is not None and self.format == "text":
            raise ValueError("json_schema: is given, but format is text")
        return self
