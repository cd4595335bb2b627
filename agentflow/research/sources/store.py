"""Stored sources in a run folder: the exact text of each, and an index. Imports source, errors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from agentflow.errors import SourceError
from agentflow.research.sources.source import Source, SourceDate, date_facts, printable

INDEX = "index.jsonl"
_ID = re.compile(r"s[1-9][0-9]{0,9}")
_PIECE = 1_000_000
_FACTS = ("id", "origin", "title", "sha256", "read_at", "media_type")


def stored_name(source_id: str) -> str:
    """Where a source's text is kept, relative to the run folder."""
    return f"sources/{source_id}.txt"


def store_sources(folder: Path, sources: Sequence[Source]) -> None:
    """Write every source's text, byte for byte what its sha256 is of, and the index last."""
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for source in sources:
        _write_whole(folder / stored_name(source.id), utf8_pieces(source.text))
        facts = {key: getattr(source, key) for key in _FACTS}
        facts |= {"characters": len(source.text), "file": stored_name(source.id), **date_facts(source.date)}
        lines.append(json.dumps(facts))
    _write_whole(folder / "sources" / INDEX, (f"{line}\n".encode("ascii") for line in lines))


def load_sources(folder: Path) -> tuple[Source, ...]:
    """Every source of a run folder, in order, each checked against its hash.

    Raises:
        SourceError: the index or a text is missing, or was changed.
    """
    index = folder / "sources" / INDEX
    sources: list[Source] = []
    try:
        for line in index.read_text("utf-8").splitlines():
            kept = json.loads(line)
            facts = {key: str(value) for key, value in kept.items() if key in _FACTS}
            text = load_text(folder, facts["id"], facts["sha256"])
            sources.append(Source(text=text, date=SourceDate.of(kept), **facts))
    except OSError as error:
        raise SourceError(f"{index} is missing; the run folder is not whole.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{index} is not an index of sources; the run folder was changed.") from error
    return tuple(sources)


def load_text(folder: Path, source_id: str, sha256: str) -> str:
    """A stored text, checked against its hash.

    Raises:
        SourceError: it is missing, or is no longer what was read.
    """
    # An id from a run folder that somebody else made must not lead to other files.
    if not _ID.fullmatch(source_id):
        raise SourceError(f"{folder} names a source '{printable(source_id)[:40]}'; the run folder was changed.")
    path = folder / stored_name(source_id)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} is missing; the run folder is not whole.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SourceError(f"{path} was changed since it was read: its SHA-256 is no longer {sha256[:12]}….")
    return data.decode("utf-8")


def _write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that is there whole or not at all, whenever the process ends."""
    unfinished = path.with_name(f"{path.name}.partial")
    with unfinished.open("wb") as file:
        file.writelines(pieces)
    unfinished.replace(path)


def sha256_of(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hex."""
    digest = hashlib.sha256()
    for piece in utf8_pieces(text):
        digest.update(piece)
    return digest.hexdigest()


def utf8_pieces(text: str) -> Iterator[bytes]:
    """A text's UTF-8 bytes, a piece at a time: a long text is not held twice."""
    for start in range(0, len(text), _PIECE):
        yield text[start : start + _PIECE].encode("utf-8")
