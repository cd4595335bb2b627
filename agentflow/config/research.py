"""``[research]``, ``[sources]``: the research job and what it may read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from agentflow.config.table import Address, Money, Share, Table, VariableName


class EmbedderSettings(Table):
    """The model that re-scores what BM25 found."""

    kind: Literal["sentence_transformers", "openai", "llamacpp"]
    """Which library or protocol."""
    model: str = ""
    """A folder or name of the model."""
    base_url: Address = None
    """``openai``: address up to and including /v1."""
    path: Path | None = None
    """``llamacpp``: the .gguf file."""
    api_key_env: VariableName = None
    """The NAME of the environment variable that holds the key."""
    price: Money | None = None
    """``openai``: dollars per million tokens. Unknown is never free: 0 for a server of your own."""

    @model_validator(mode="after")
    def _has_its_place(self) -> EmbedderSettings:
        if self.kind == "openai" and (not self.base_url or not self.model or self.price is None):
            raise ValueError("embedder 'openai' needs base_url, model and price (0 for a server of your own)")
        if self.kind == "sentence_transformers" and not self.model:
            raise ValueError("embedder 'sentence_transformers' needs model")
        if self.kind == "llamacpp" and self.path is None:
            raise ValueError("embedder 'llamacpp' needs path, a .gguf file")
        return self


class ResearchSettings(Table):
    """The research job."""

    chunk_chars: int = Field(default=2_000, ge=200)
    """Characters of a chunk, at most."""
    passages: int = Field(default=8, gt=0, le=100)
    """Passages looked up for each sub-question."""
    most_passages: int = Field(default=16, gt=0, le=200)
    """Passages a synthesiser reads, over all sub-questions."""
    sub_questions: int = Field(default=4, gt=0, le=12)
    """Sub-questions of a plan, at most."""
    support: Share = 0.6
    """Share of a claim's weight that its quotes must cover."""
    answerable: Share = 0.5
    """Share of a question's weight that one passage must cover before code alone answers it."""
    embedder: EmbedderSettings | None = None
    """Re-score BM25's best few hundred chunks."""


class SourceSettings(Table):
    """Bounds on what is read."""

    max_file_mb: float = Field(default=50, gt=0)
    """Largest file."""
    max_files: int = Field(default=50_000, gt=0)
    """Most files of a folder."""
    max_page_mb: float = Field(default=20, gt=0)
    """Largest web page, decompressed."""
    page_timeout_s: float = Field(default=20, gt=0)
    """Seconds a page may take."""
    allow_private: bool = False
    """Fetch pages from private, loopback and link-local addresses too."""
