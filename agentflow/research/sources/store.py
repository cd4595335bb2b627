"""Stored sources in a run folder: the exact text of each, and an index. Imports source, errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from agentflow.errors import SourceError
from agentflow.research.sources.source import Source

INDEX = "index.jsonl"


def stored_name(source_id: str) -> str:
    """Where a source's text is kept, relative to the run folder."""
    return f"sources/{source_id}.txt"


def store_sources(folder: Path, sources: Sequence[Source]) -> None:
    """Write every source's text, byte for byte what its sha256 is of, and the index last."""
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for source in sources:
        (folder / stored_name(source.id)).write_bytes(source.text.encode("utf-8", "surrogatepass"))
        facts = {key: value for key, value in asdict(source).items() if key != "text"}
        lines.append(json.dumps({**facts, "characters": len(source.text), "file": stored_name(source.id)}))
    index = folder / "sources" / INDEX
    unfinished = index.with_suffix(".partial")
    unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    unfinished.replace(index)


def load_text(folder: Path, source_id: str, sha256: str) -> str:
    """A stored text, checked against its hash.

    Raises:
        SourceError: it is missing, or is no longer what was read.
    """
    path = folder / stored_name(source_id)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} is missing; the run folder is not whole.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SourceError(f"{path} was changed since it was read: its SHA-256 is no longer {sha256[:12]}….")
    return data.decode("utf-8", "surrogatepass")
