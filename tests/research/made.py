"""Sources and corpora made for a test."""

from __future__ import annotations

import hashlib

from agentflow.research.corpus import Corpus
from agentflow.research.sources.source import Source


def made_source(text: str, *, id: str = "s1", title: str = "", media_type: str = "text/markdown") -> Source:
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Source(id, f"{id}.md", title, text, sha256, "2026-01-01T00:00:00+00:00", media_type)


def made_corpus(*texts: str, media_type: str = "text/plain", chunk_chars: int = 2_000) -> Corpus:
    sources = [made_source(text, id=f"s{n}", media_type=media_type) for n, text in enumerate(texts, start=1)]
    return Corpus.build(sources, chunk_chars=chunk_chars)
