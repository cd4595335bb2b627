"""The corpus: sources cut into chunks that keep their character offsets. Imports sources, outline, sentences.

A chunk holds offsets, not text. Cuts fall before headings and blocks, at blank lines, before list items, at sentence
ends or line ends, whichever kind comes first in this order and late enough in the chunk; only a text without any of
these is cut at a space, or blindly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentflow.research.outline import Outline
from agentflow.research.sentences import boundaries, trimmed
from agentflow.research.sources.source import Source

CHUNK_CHARS = 2_000
# The last place of a kind is taken, if the chunk then has at least this share of its full length.
_EARLIEST_CUT = 0.35
# Text in lines rather than in sentences: no headings, and a line is whole in itself.
_IN_LINES = frozenset(
    {"application/json", "application/jsonl", "text/csv", "text/tab-separated-values", "text/x-python"}
)
_ITEM = re.compile(r"\n(?=[ \t]{0,8}(?:[-*+]|\d{1,3}[.)])[ \t])")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A region of a source's text: ``source.text[start:end]``. ``heading`` is the path of headings above it."""

    source: Source
    start: int
    end: int
    heading: str

    @property
    def text(self) -> str:
        """The chunk's own text."""
        return self.source.text[self.start : self.end]


class Corpus:
    """Sources and their chunks.

    Example:
        >>> corpus = Corpus.build(reading.sources)        # doctest: +SKIP
        >>> corpus.chunks[0].text
    """

    def __init__(self, sources: Sequence[Source], chunks: Sequence[Chunk]) -> None:
        self.sources = tuple(sources)
        self.chunks = tuple(chunks)
        self._by_id = {source.id: source for source in self.sources}

    @classmethod
    def build(cls, sources: Sequence[Source], *, chunk_chars: int = CHUNK_CHARS) -> Corpus:
        """Cut every source into chunks of about ``chunk_chars`` characters, never more.

        Every character that is not white space lies in exactly one chunk.
        """
        if chunk_chars < 1:
            raise ValueError(f"chunk_chars is {chunk_chars}; it must be at least 1.")
        return cls(sources, [chunk for source in sources for chunk in _chunks(source, chunk_chars)])

    def source(self, source_id: str) -> Source:
        """The source of this id.

        Raises:
            KeyError: there is none.
        """
        return self._by_id[source_id]


def _chunks(source: Source, size: int) -> list[Chunk]:
    text = source.text
    in_lines = source.media_type in _IN_LINES
    outline = Outline() if in_lines else Outline.of(text, markdown=source.media_type == "text/markdown")
    chunks: list[Chunk] = []
    position = 0
    while position < len(text):
        cut = len(text)
        if position + size < len(text):
            cut = _cut_lines(text, position, size) if in_lines else _cut_prose(text, position, size, outline)
        start, end = trimmed(text, position, cut)
        if start < end:
            chunks.append(Chunk(source, start, end, outline.path_at(start)))
        position = cut
    return chunks


def _cut_lines(text: str, position: int, size: int) -> int:
    """Where a chunk of a table, of data or of code ends that begins at ``position``."""
    last = position + size
    return _last_mark(text, position + int(size * _EARLIEST_CUT), last, ("\n\n", "\n", " ", ",")) or last


def _cut_prose(text: str, position: int, size: int, outline: Outline) -> int:
    """Where a chunk of prose ends that begins at ``position``."""
    last = position + size
    earliest = position + int(size * _EARLIEST_CUT)
    block = outline.block_at(last)
    if block is not None and block.start > position and text[position : block.start].strip():
        # A block is not cut as long as it can be whole in a chunk; one too large begins a chunk if it comes late.
        if block.end - block.start <= size or block.start >= earliest:
            return outline.last_heading(earliest, block.start) or block.start
    elif block is not None:
        return _cut_lines(text, position, size)
    return (
        outline.last_heading(earliest, last)
        or _blank_line(text, earliest, last, outline)
        or _last_item(text, earliest, last, outline)
        or _sentence_end(text, position, earliest, last)
        or _last_mark(text, earliest, last, ("\n", " "))
        or last
    )


def _last_mark(text: str, earliest: int, last: int, marks: Sequence[str]) -> int:
    """Just after the last of the first kind of mark that occurs in the window; 0 when none does."""
    for mark in marks:
        found = text.rfind(mark, earliest, last)
        if found >= 0:
            return found + len(mark)
    return 0


def _blank_line(text: str, earliest: int, last: int, outline: Outline) -> int:
    """Just after the last blank line in the window that is not inside a block; 0 when there is none."""
    while (found := text.rfind("\n\n", earliest, last)) >= 0:
        block = outline.block_at(found + 2)
        if block is None:
            return found + 2
        last = block.start
    return 0


def _last_item(text: str, earliest: int, last: int, outline: Outline) -> int:
    starts = [found.end() for found in _ITEM.finditer(text, earliest, last)]
    return next((start for start in reversed(starts) if outline.block_at(start) is None), 0)


def _sentence_end(text: str, position: int, earliest: int, last: int) -> int:
    """The last end of a sentence in the window, 0 when there is none. The last sentence found may go on."""
    ends = [position + end for _, end in boundaries(text[position:last])[:-1]]
    return next((end for end in reversed(ends) if earliest < end), 0)
