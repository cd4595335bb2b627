"""Text out of formats, by well-kept libraries, each imported when its format first occurs.

Imports dating, decoding, source, errors. A parser's own exceptions never leave this file.
"""

from __future__ import annotations

import copy
import io
import logging
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from agentflow.errors import SourceError
from agentflow.messages import encodable
from agentflow.research.sources.dating import date_in_facts, date_in_page, date_in_text
from agentflow.research.sources.decoding import declared_in_html, decode, one_kind_of_line_ends
from agentflow.research.sources.source import MEGABYTE, Extracted, ReadLimits

_MARKDOWN_TITLE = re.compile(
    r"^(?:#{1,6}[ \t]+(?P<atx>.+?)[ \t#]*|(?P<setext>[^\s#>|\-*+].*)\n(?:={2,}|-{2,})[ \t]*)$", re.MULTILINE
)
_RST_TITLE = re.compile(r"^(?P<title>\S.*)\n(?P<line>[=\-~#*^\"'])(?P=line){2,}[ \t]*$", re.MULTILINE)
_SPACES = re.compile(r"\s+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_SPACE = re.compile(rb"\S")
_TITLE_CHARS = 200
_HEAD = 2_000
_NO_TITLES = frozenset({"", "untitled", "(anonymous)", "none"})
_LARGEST_SEARCHED = 2_000_000
_MOST_XML = 40 * MEGABYTE

MEDIA_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
    ".txt": "text/plain",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".py": "text/x-python",
}
DOCX = MEDIA_TYPES[".docx"]
_PARSED = frozenset({"text/html", "application/pdf", DOCX})


def media_type_of(name: str) -> str:
    """The media type that a file's name tells; text/plain when it tells none."""
    return MEDIA_TYPES.get(PurePosixPath(name.lower()).suffix, "text/plain")


def is_parsed(media_type: str, data: bytes = b"") -> bool:
    """Whether getting the text out takes a parser, and so may take long, rather than decoding alone."""
    return media_type in _PARSED or data.startswith(b"%PDF-")


def extract(
    data: bytes,
    media_type: str,
    name: str,
    limits: ReadLimits,
    *,
    charset: str | None = None,
) -> Extracted:
    """Get the text out of a document.

    Args:
        data: the whole document.
        media_type: what it is.
        name: its file name or address, for a title when it has none of its own.
        limits: bounds on what may come out.
        charset: the encoding that a server declared for it.

    Raises:
        SourceError: empty, binary, broken, encrypted, or larger inside than the limits allow. The message has no
            name in it; the caller puts it in front.
    """
    if not _NOT_SPACE.search(data):
        raise SourceError("is empty (0 bytes of text)")
    room = _Room(limits)
    if media_type == "application/pdf" or data.startswith(b"%PDF-"):
        found = _pdf(data, room)
    elif media_type == DOCX:
        found = _docx(data, room)
    elif media_type == "text/html":
        found = _html(decode(data, charset or declared_in_html(data)))
    else:
        text = decode(data, charset)
        found = Extracted(text, _text_title(text, media_type), media_type, date_in_text(text, media_type))
    if not found.text or found.text.isspace():
        raise SourceError("has no text in it")
    title = _SPACES.sub(" ", _CONTROLS.sub(" ", encodable(found.title))).strip()[:_TITLE_CHARS]
    return replace(found, title=title or name.rstrip("/").rsplit("/", 1)[-1])


@dataclass(slots=True)
class _Room:
    """How much text may come out of a document that holds more than its size tells."""

    limits: ReadLimits
    _characters: int = 0

    def take(self, text: str) -> str:
        """Count a piece of text in.

        Raises:
            SourceError: it is too much.
        """
        self._characters += len(text)
        if self._characters > self.limits.max_extracted_chars:
            raise SourceError(f"holds more than {self.limits.max_extracted_chars:,} characters of text")
        return text


def _text_title(text: str, media_type: str) -> str:
    head = text[:20_000]
    if media_type == "text/markdown" and (found := _MARKDOWN_TITLE.search(head)):
        return re.sub(r"[*_`]", "", found.group("atx") or found.group("setext"))
    if media_type == "text/x-rst" and (found := _RST_TITLE.search(head)):
        return found.group("title")
    return ""


def _html(text: str) -> Extracted:
    import trafilatura

    _quiet("trafilatura", "htmldate", "courlan", "justext")
    try:
        # A fragment is not taken for HTML; wrapped it is a document like any other.
        tree: Any = trafilatura.load_html(text) if "<html" in text[:_HEAD].lower() else None
        tree = trafilatura.load_html(f"<html><body>{text}</body></html>") if tree is None else tree
        if tree is None:
            raise SourceError("is broken HTML")
        title = next(filter(str.strip, (" ".join(found.itertext()) for found in tree.iter("title", "h1"))), "")
        date = date_in_page(tree) if len(text) <= _LARGEST_SEARCHED else None
        # The search for the main part takes time that grows with the square of the length.
        body: str | None = None
        if len(text) <= _LARGEST_SEARCHED:
            body = trafilatura.extract(copy.deepcopy(tree), include_comments=False, include_tables=True)
        # What has no main part is taken paragraph by paragraph, or as it stands.
        body = body or trafilatura.baseline(copy.deepcopy(tree))[1] or trafilatura.html2txt(tree)
    except (SourceError, MemoryError):
        raise
    except Exception as error:
        raise SourceError(f"is broken HTML ({type(error).__name__})") from error
    return Extracted(encodable(one_kind_of_line_ends(body or "")), title, "text/html", date)


def _pdf(data: bytes, room: _Room) -> Extracted:
    """Its pages' text, with an empty line at each page break."""
    import pypdf

    _quiet("pypdf")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise SourceError("is an encrypted PDF; remove its password first")
        if len(reader.pages) > room.limits.max_pdf_pages:
            raise SourceError(f"has {len(reader.pages):,} pages; the limit is {room.limits.max_pdf_pages:,}")
        text = "\n\n".join(room.take(page.extract_text()) for page in reader.pages)
        title = str((reader.metadata and reader.metadata.title) or "").strip()
        date = date_in_facts(reader.metadata, "creation_date", "modification_date")
    except (SourceError, MemoryError):
        raise
    except Exception as error:
        # On a broken file pypdf lets any kind of exception through.
        raise SourceError(f"is a broken PDF ({type(error).__name__})") from error
    if not text or text.isspace():
        raise SourceError("is a PDF without text (scanned pages?); run it through OCR first")
    if title.lower() in _NO_TITLES:
        title = text.lstrip()[:_HEAD].split("\n", 1)[0]
    return Extracted(encodable(one_kind_of_line_ends(text)), title, "application/pdf", date)


def _docx(data: bytes, room: _Room) -> Extracted:
    import docx

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = sum(entry.file_size for entry in archive.infolist())
            markup = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith((".xml", ".rels")))
        # A tree of its markup takes about ten times its size; pictures are only held.
        if inside > 4 * room.limits.max_extracted_chars or markup > min(room.limits.max_extracted_chars, _MOST_XML):
            raise SourceError(f"unpacks to {inside:,} bytes, which is more than we open")
        document = docx.Document(io.BytesIO(data))
        blocks: list[str] = []
        title = document.core_properties.title or ""
        for block in document.iter_inner_content():
            if not title and str(getattr(block.style, "name", "")).startswith(("Heading", "Title")):
                title = str(getattr(block, "text", ""))
            blocks.append(room.take(_block(block)))
        date = date_in_facts(document.core_properties, "created", "modified")
    except (SourceError, MemoryError):
        raise
    except Exception as error:
        # Its parts are looked up by name, so a broken file fails anywhere.
        raise SourceError(f"is a broken .docx ({type(error).__name__})") from error
    text = encodable(one_kind_of_line_ends("\n\n".join(b for b in blocks if b.strip())))
    return Extracted(text, title, DOCX, date)


def _block(block: Any) -> str:
    """The text of a paragraph, or of a table with a line for each row."""
    from docx.table import Table, _Cell

    if not isinstance(block, Table):
        return str(block.text)
    lines: list[str] = []
    for row in block.rows:
        # The cells as they stand in the file: python-docx would repeat a merged one as often as the file demands.
        cells = (_Cell(cell, block) for cell in row._tr.tc_lst)
        lines.append(" | ".join(" ".join(_block(part) for part in cell.iter_inner_content()).strip() for cell in cells))
    return "\n".join(lines)


def _quiet(*loggers: str) -> None:
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
