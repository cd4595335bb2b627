"""Text out of formats, by well-kept libraries, each imported when its format first occurs. Imports source, errors."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from agentflow.errors import SourceError
from agentflow.research.sources.source import Extracted, ReadLimits

_MARKDOWN_TITLE = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_RST_TITLE = re.compile(r"^(?P<title>\S.*)\n(?P<line>[=\-~#*^\"'])(?P=line){2,}[ \t]*$", re.MULTILINE)
_SPACES = re.compile(r"\s+")
_TITLE_CHARS = 200
_MAX_ZIP_RATIO = 200
# With fewer bytes beyond ASCII a statistical judgement is a guess; Western text is then the likeliest.
_TOO_FEW_TO_JUDGE = 32

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
_BINARY_STARTS = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x7fELF",
    b"SQLite format 3\x00",
    b"OggS",
    b"RIFF",
)


def media_type_of(name: str) -> str:
    """The media type that a file's name tells; text/plain when it tells none."""
    return MEDIA_TYPES.get(PurePosixPath(name.lower()).suffix, "text/plain")


def extract(data: bytes, media_type: str, name: str, limits: ReadLimits) -> Extracted:
    """Get the text out of a document.

    Args:
        data: the whole document.
        media_type: what it is.
        name: its file name or address, for a title when it has none of its own.
        limits: bounds on what may come out.

    Raises:
        SourceError: empty, binary, broken, encrypted, or larger inside than the limits allow. The message has no
            name in it; the caller puts it in front.
    """
    if not data.strip():
        raise SourceError("is empty (0 bytes of text)")
    if media_type == "application/pdf" or data.startswith(b"%PDF-"):
        found = _pdf(data, limits)
    elif media_type == DOCX:
        found = _docx(data, limits)
    elif media_type == "text/html":
        found = _html(decode(data))
    else:
        text = decode(data)
        found = Extracted(text, _text_title(text, media_type), media_type)
    if not found.text.strip():
        raise SourceError("has no text in it")
    if len(found.text) > limits.max_extracted_chars:
        raise SourceError(f"holds {len(found.text):,} characters of text; the limit is {limits.max_extracted_chars:,}")
    title = _SPACES.sub(" ", found.title).strip()[:_TITLE_CHARS] or name.rstrip("/").rsplit("/", 1)[-1]
    return Extracted(found.text, title, found.media_type)


def decode(data: bytes) -> str:
    """Bytes as text with line feeds for line ends: by byte order mark, as UTF-8, else as charset-normalizer judges.

    With too few characters to judge by, as Windows-1252.

    Raises:
        SourceError: binary data, or no encoding fits.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _line_ends(data.decode("utf-16", "replace"))
    if b"\x00" in data[:65536] or data.startswith(_BINARY_STARTS):
        raise SourceError("is a binary file, not text")
    try:
        return _line_ends(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        pass
    if sum(byte > 127 for byte in data) < _TOO_FEW_TO_JUDGE:
        return _line_ends(data.decode("cp1252", "replace"))
    from charset_normalizer import from_bytes

    best = from_bytes(data[:1_000_000]).best()
    if best is None:
        raise SourceError("is not text in any encoding we know")
    return _line_ends(data.decode(best.encoding, "replace"))


def _line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _text_title(text: str, media_type: str) -> str:
    head = text[:20_000]
    if media_type == "text/markdown" and (found := _MARKDOWN_TITLE.search(head)):
        return re.sub(r"[*_`]", "", found.group(1))
    if media_type == "text/x-rst" and (found := _RST_TITLE.search(head)):
        return found.group("title")
    return ""


def _html(text: str) -> Extracted:
    import trafilatura
    from trafilatura.metadata import extract_metadata

    _quiet("trafilatura", "htmldate", "courlan", "justext")
    tree: Any = trafilatura.load_html(text)
    metadata = extract_metadata(tree)
    title = str(getattr(metadata, "title", None) or "")
    body = trafilatura.extract(text, include_comments=False, include_tables=True)
    # A page too short to have a main part is taken paragraph by paragraph, or as it stands.
    body = body or trafilatura.baseline(text)[1] or trafilatura.html2txt(text)
    return Extracted(_line_ends(body or ""), title, "text/html")


def _pdf(data: bytes, limits: ReadLimits) -> Extracted:
    import pypdf
    from pypdf.errors import PyPdfError

    _quiet("pypdf")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise SourceError("is an encrypted PDF; remove its password first")
        if len(reader.pages) > limits.max_pdf_pages:
            raise SourceError(f"has {len(reader.pages):,} pages; the limit is {limits.max_pdf_pages:,}")
        text = "\n\n".join(_bounded((page.extract_text() for page in reader.pages), limits))
        title = str((reader.metadata and reader.metadata.title) or "") or text.strip().split("\n", 1)[0]
    except SourceError:
        raise
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, RecursionError) as error:
        # pypdf lets many kinds of exception through on a broken file.
        raise SourceError(f"is a broken PDF ({type(error).__name__})") from error
    if not text.strip():
        raise SourceError("is a PDF without text (scanned pages?); run it through OCR first")
    return Extracted(_line_ends(text), title, "application/pdf")


def _docx(data: bytes, limits: ReadLimits) -> Extracted:
    import docx
    from docx.table import Table

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = sum(entry.file_size for entry in archive.infolist())
        if (
            inside > max(limits.max_extracted_chars, _MAX_ZIP_RATIO * len(data))
            or inside > 4 * limits.max_extracted_chars
        ):
            raise SourceError(f"unpacks to {inside:,} bytes, which is more than we open")
        document = docx.Document(io.BytesIO(data))
        blocks: list[str] = []
        title = document.core_properties.title or ""
        for block in document.iter_inner_content():
            if isinstance(block, Table):
                rows = (" | ".join(cell.text.strip() for cell in row.cells) for row in block.rows)
                blocks.append("\n".join(rows))
                continue
            if not title and str(getattr(block.style, "name", "")).startswith(("Heading", "Title")):
                title = block.text
            blocks.append(block.text)
    except SourceError:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, AttributeError, OSError) as error:
        raise SourceError(f"is a broken .docx ({type(error).__name__})") from error
    return Extracted(_line_ends("\n\n".join(b for b in blocks if b.strip())), title, DOCX)


def _bounded(parts: Iterator[str], limits: ReadLimits) -> Iterator[str]:
    total = 0
    for part in parts:
        total += len(part)
        if total > limits.max_extracted_chars:
            raise SourceError(f"holds more than {limits.max_extracted_chars:,} characters of text")
        yield part


def _quiet(*loggers: str) -> None:
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
