"""Bytes as text: which encoding, which line ends, and what is no text at all. Imports errors."""

from __future__ import annotations

import codecs
import re

from agentflow.errors import SourceError

_BINARY_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"PK\x03\x04", b"\x1f\x8b", b"\x7fELF")
# utf-32 first: its little-endian mark begins with the one of utf-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# A page that declares one of these most often means UTF-8, and else the Windows table: https://encoding.spec.whatwg.org
_WESTERN = frozenset({"ascii", "iso8859-1", "cp1252"})
# Codecs of Python that are no encodings of documents, some of them slow enough to hang a reader.
_NOT_FOR_DOCUMENTS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7"})
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w:.-]{2,40})", re.IGNORECASE)
_META_WITHIN = 4096
_ASCII = bytes(range(128))
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\x0b\x0c\r\x1b")
_MOST_CONTROLS = 0.01
# With fewer bytes beyond ASCII a statistical judgement is a guess; Western text is then the likeliest.
_TOO_FEW_TO_JUDGE = 32
_JUDGED_BYTES = 1_000_000


def decode(data: bytes, declared: str | None = None) -> str:
    """Bytes as text with line feeds for line ends, whatever they were.

    Tried in this order: a byte order mark, the declared encoding where it exists and fits, UTF-8, Windows-1252 where
    there is too little to judge by, what charset-normalizer judges.

    Args:
        data: a whole document.
        declared: the encoding that a server or the document itself names.

    Raises:
        SourceError: binary data, or no encoding fits.
    """
    return one_kind_of_line_ends(_decoded(data, declared))


def declared_in_html(data: bytes) -> str | None:
    """The encoding that an HTML document names in its head."""
    found = _META_CHARSET.search(data[:_META_WITHIN])
    return found.group(1).decode("ascii", "ignore") if found else None


def one_kind_of_line_ends(text: str) -> str:
    """Line feeds for CR LF and CR."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes, declared: str | None) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _by_mark(data, encoding)
    if data.find(b"\x00", 0, 65_536) >= 0:
        raise SourceError("is a binary file, not text")
    encoding = _known(declared)
    if encoding is not None and encoding not in _WESTERN:
        try:
            return data.decode(encoding)
        except (UnicodeError, LookupError):
            pass
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    if data.startswith(_BINARY_STARTS) or len(data) - len(data.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(data):
        raise SourceError("is a binary file, not text")
    if encoding in _WESTERN or len(data.translate(None, _ASCII)) < _TOO_FEW_TO_JUDGE:
        return data.decode("cp1252", "replace")
    return _judged(data)


def _by_mark(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "replace")
    if "\x00" in text[:65_536]:
        raise SourceError("is a binary file, not text")
    return text


def _known(declared: str | None) -> str | None:
    """Python's name of a declared encoding; None for one that does not exist or is not for documents."""
    if declared is None:
        return None
    try:
        name = codecs.lookup(declared).name
    except (LookupError, ValueError):
        return None
    return None if name.replace("_", "-") in _NOT_FOR_DOCUMENTS else name


def _judged(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_JUDGED_BYTES]).best()
    if best is None:
        raise SourceError("is not text in any encoding we know")
    return data.decode(best.encoding, "replace")
