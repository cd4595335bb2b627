"""The corpus: sources cut into chunks that keep their character offsets. Imports sources.

A chunk holds offsets, not text. Cuts fall at headings, blank lines, line ends or sentence ends, whichever comes
late enough in the chunk; only a text without any of these is cut at a space, or blindly.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentflow.research.sources.source import Source

CHUNK_CHARS = 2_000
# The last place of a kind is taken, if the chunk then has at least this share of its full length.
_EARLIEST_CUT = 0.35
_HEADED = frozenset({"text/markdown", "text/plain", "text/html"})
_HEADING_OR_FENCE = re.compile(r"^(?:(```|~~~)|(#{1,6})[ \t]+(.+?)[ \t#]*$)", re.MULTILINE)


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
        """Cut every source into chunks of about ``chunk_chars`` characters, never more."""
        return cls(sources, [chunk for source in sources for chunk in _chunks(source, chunk_chars)])

    def source(self, source_id: str) -> Source:
        """The source of this id.

        Raises:
            KeyError: there is none.
        """
        return self._by_id[source_id]


def _chunks(source: Source, size: int) -> list[Chunk]:
    text = source.text
    offsets, paths = _headings(text) if source.media_type in _HEADED else ([], [])
    chunks: list[Chunk] = []
    position = 0
    while position < len(text):
        cut = _cut(text, position, size)
        start, end = _trimmed(text, position, cut)
        if start < end:
            place = bisect.bisect_right(offsets, start) - 1
            chunks.append(Chunk(source, start, end, paths[place] if place >= 0 else ""))
        position = cut
    return chunks


def _cut(text: str, position: int, size: int) -> int:
    """Where the chunk that begins at ``position`` ends."""
    last = position + size
    if last >= len(text):
        return len(text)
    earliest = position + int(size * _EARLIEST_CUT)
    for mark, keep in (("\n#", 1), ("\n\n", 2), ("\n", 1), (". ", 2), (" ", 1)):
        found = text.rfind(mark, earliest, last)
        if found >= 0:
            return found + keep
    return last


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    left = len(part) - len(part.lstrip())
    return start + left, start + len(part.rstrip())


def _headings(text: str) -> tuple[list[int], list[str]]:
    """Offsets of Markdown headings, and the path of headings that holds from each on. Code fences have none."""
    offsets: list[int] = []
    paths: list[str] = []
    above: list[tuple[int, str]] = []
    fenced = False
    for found in _HEADING_OR_FENCE.finditer(text):
        if found.group(1):
            fenced = not fenced
        elif not fenced:
            level = len(found.group(2))
            above = [*(entry for entry in above if entry[0] < level), (level, found.group(3))]
            offsets.append(found.start())
            paths.append(" > ".join(title for _, title in above))
    return offsets, paths
