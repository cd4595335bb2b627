"""What a source is once it has been read. Imports nothing of agentflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

MEGABYTE = 1_000_000
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


DateBasis = Literal["page", "document", "server", "file"]
_SAID_BY: dict[DateBasis, str] = {
    "page": "as the page says",
    "document": "as the document says",
    "server": "as its server says",
    "file": "when the file was last changed",
}


@dataclass(frozen=True, slots=True)
class SourceDate:
    """The day of a source, and what tells it.

    ``page``: the markup of a page (meta elements, JSON-LD, time elements); ``document``: the facts that a PDF, a Word
    file or a Markdown file has about itself; ``server``: HTTP Last-Modified; ``file``: when the file was last changed,
    which for an upload is when it came.
    """

    day: date
    basis: DateBasis

    def __str__(self) -> str:
        return f"{self.day} ({_SAID_BY[self.basis]})"

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> SourceDate | None:
        """The date that ``date_facts`` wrote down; None where there is none, or none that can be."""
        basis = facts.get("date_from")
        try:
            day = date.fromisoformat(str(facts.get("date")))
        except ValueError:
            return None
        return next((cls(day, known) for known in _SAID_BY if known == basis), None)


def date_facts(found: SourceDate | None) -> dict[str, str]:
    """A date as it is kept beside a source: ``date`` and ``date_from``; nothing when there is none."""
    return {} if found is None else {"date": found.day.isoformat(), "date_from": found.basis}


@dataclass(frozen=True, slots=True)
class Source:
    """Extracted text and where it came from.

    ``text`` is what offsets and ``sha256`` (hex, of its UTF-8 bytes) speak of: decoded, line ends as line feeds,
    nothing else changed for text formats. ``origin`` is the path or address; ``read_at`` ISO 8601 in UTC.
    """

    id: str
    origin: str
    title: str
    text: str
    sha256: str
    read_at: str
    media_type: str
    date: SourceDate | None = None


SkipCause = Literal["unreadable", "double", "date", "undated", "domain"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source that was found and not read, and why: in words, and as one of a few causes that can be counted."""

    origin: str
    reason: str
    cause: SkipCause = "unreadable"


@dataclass(frozen=True, slots=True)
class Reading:
    """All that was read, in the order it was asked for."""

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on what is read, so that a hostile or careless source cannot take the machine down.

    Bytes are of the file, or of the decompressed body of a page. Characters are of text got out of a format that may
    hold far more than its file's size tells (PDF, .docx). The last two bound the process that parses one HTML, PDF or
    .docx document: seconds of wall clock, and bytes of address space where the system can bound that (Linux).
    """

    max_file_bytes: int = 50 * MEGABYTE
    max_files: int = 50_000
    max_page_bytes: int = 20 * MEGABYTE
    page_timeout_s: float = 20.0
    max_redirects: int = 5
    max_extracted_chars: int = 100 * MEGABYTE
    max_pdf_pages: int = 5_000
    parse_timeout_s: float = 120.0
    max_parser_bytes: int = 2_000 * MEGABYTE


@dataclass(frozen=True, slots=True)
class Extracted:
    """Text got out of one document, with its title and its day when the format carries them."""

    text: str
    title: str
    media_type: str
    date: SourceDate | None = None


def kind_of(origin: str) -> Literal["page", "folder", "file"]:
    """What an origin names; a path where nothing is counts as a file. Never raises."""
    if is_page(origin):
        return "page"
    try:
        return "folder" if Path(origin).expanduser().is_dir() else "file"
    except (OSError, ValueError, RuntimeError):
        return "file"


def is_page(origin: str) -> bool:
    """Whether an origin is an address rather than a path."""
    return "://" in origin


def printable(name: str) -> str:
    """A path or an address as it can be shown and stored: one line, no control characters, all of it UTF-8."""
    return _CONTROLS.sub("\ufffd", name.encode("utf-8", "replace").decode("utf-8"))
