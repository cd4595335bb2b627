"""Indexed sources: one source read, cut and counted, as bytes that are kept and loaded again. Imports corpus, postings.

What a job makes of a source depends on its text alone until corpora are put together, so it is made once. The bytes are
one line of JSON, then the text and two tables of int32; whatever is not exactly that is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

import numpy as np

from agentflow.errors import SourceError
from agentflow.research.corpus import Chunk, Corpus
from agentflow.research.postings import Ints, Postings
from agentflow.research.retrieval import Bm25Index, searched_text
from agentflow.research.sources.scope import ANYTHING, Scope
from agentflow.research.sources.source import Reading, Skipped, Source, SourceDate, date_facts

# Goes up with every change of what is made of a text: of extraction, cutting, stemming, or of these bytes.
VERSION: Final = 2
_FACTS: Final = ("title", "sha256", "read_at", "media_type")
_LONGEST: Final = 2**31 - 1
# The same on every machine.
_INT: Final = np.dtype("<i4")


@dataclass(frozen=True, slots=True, eq=False)
class IndexedSource:
    """A source with its chunks and their postings."""

    source: Source
    chunks: tuple[Chunk, ...]
    postings: Postings

    @classmethod
    def of(cls, source: Source, chunk_chars: int) -> Self:
        """Cut and count a source that was read. Runs on one core."""
        chunks = Corpus.build([source], chunk_chars=chunk_chars).chunks
        return cls(source, chunks, Postings.of(map(searched_text, chunks)))

    def named(self, id: str, origin: str) -> IndexedSource:
        """The same under another id, and from another place."""
        source = replace(self.source, id=id, origin=origin)
        chunks = tuple(Chunk(source, chunk.start, chunk.end, chunk.heading) for chunk in self.chunks)
        return IndexedSource(source, chunks, self.postings)

    def to_bytes(self) -> bytes:
        """What ``from_bytes`` reads."""
        headings = {text: number for number, text in enumerate(dict.fromkeys(chunk.heading for chunk in self.chunks))}
        spans = [(chunk.start, chunk.end, headings[chunk.heading]) for chunk in self.chunks]
        postings, text = self.postings, self.source.text.encode("utf-8")
        facts = {name: getattr(self.source, name) for name in _FACTS} | date_facts(self.source.date)
        sizes = {"text": len(text), "chunks": len(spans), "postings": len(postings.term)}
        head = {"version": VERSION, **facts, **sizes, "headings": list(headings), "terms": postings.terms}
        tables = (np.array(spans, _INT).reshape(-1, 3).T, postings.term, postings.chunk, postings.count)
        return b"".join(
            [json.dumps(head).encode("ascii"), b"\n", text, *(np.asarray(one, _INT).tobytes() for one in tables)]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote; the source has no id and no origin yet. Its arrays are views of ``data``.

        Raises:
            SourceError: they are of another version, or are no such thing.
        """
        try:
            return cls._read(data)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise SourceError(f"An index of a source cannot be read ({type(error).__name__}). Make it anew.") from error

    @classmethod
    def _read(cls, data: bytes) -> Self:
        line = data.index(b"\n")
        head = json.loads(data[:line])
        if head["version"] != VERSION:
            raise ValueError("of another version")
        size, chunks, standing = (int(head[name]) for name in ("text", "chunks", "postings"))
        if min(size, chunks, standing) < 0 or line + 1 + size + 12 * (chunks + standing) != len(data):
            raise ValueError("of another length")
        text = data[line + 1 : line + 1 + size].decode("utf-8")
        spans = np.frombuffer(data, _INT, 3 * chunks, line + 1 + size).reshape(3, chunks)
        term, chunk, count = np.frombuffer(data, _INT, 3 * standing, len(data) - 12 * standing).reshape(3, standing)
        headings, terms = [str(one) for one in head["headings"]], tuple(str(one) for one in head["terms"])
        _within(spans[:2], len(text) + 1)
        _within(spans[2], len(headings))
        _within(term, len(terms))
        _within(chunk, chunks)
        _within(count, _LONGEST)
        if (np.diff(term) < 0).any() or list(terms) != sorted(set(terms)):
            raise ValueError("not in order")
        facts = {name: str(head[name]) for name in _FACTS}
        source = Source(id="", origin="", text=text, date=SourceDate.of(head), **facts)
        rows: list[list[int]] = spans.T.tolist()
        cut = tuple(Chunk(source, begin, end, headings[number]) for begin, end, number in rows)
        return cls(source, cut, Postings(terms, chunks, term, chunk, count))


class Shelf(Protocol):
    """Files that were uploaded for jobs to look in, each read and indexed once, whichever job needs it."""

    names: tuple[str, ...]
    """What they are called, for the record."""
    unread_bytes: int
    """How many bytes of them no index is there for yet."""

    async def load(self) -> Sequence[IndexedSource]:
        """All of them; what is not indexed yet is read and indexed now.

        Raises:
            SourceError: one cannot be read.
            JobStoreError: where they are kept cannot be reached.
        """
        ...


def joined(
    reading: Reading, kept: Sequence[IndexedSource], scope: Scope = ANYTHING
) -> tuple[Reading, tuple[IndexedSource, ...]]:
    """What was read and what was kept as one reading: numbered on, the same text once, of the days of the scope."""
    seen = {source.sha256: source.origin for source in reading.sources}
    taken, skipped = list[IndexedSource](), list(reading.skipped)
    for one in kept:
        origin = one.source.origin
        left_out = scope.left_out(one.source.date)
        if left_out is not None:
            skipped.append(Skipped(origin, left_out[1], left_out[0]))
            continue
        first = seen.setdefault(one.source.sha256, origin)
        if first is origin:
            taken.append(one.named(f"s{len(reading.sources) + len(taken) + 1}", origin))
        else:
            skipped.append(Skipped(origin, f"same text as {first}", "double"))
    return Reading((*reading.sources, *(one.source for one in taken)), tuple(skipped)), tuple(taken)


def index_of(fresh: Corpus, kept: Sequence[IndexedSource]) -> Bm25Index:
    """One index over sources that were just read and over those that were kept, which are not counted again."""
    sources = [*fresh.sources, *(one.source for one in kept)]
    corpus = Corpus(sources, [*fresh.chunks, *(chunk for one in kept for chunk in one.chunks)])
    counted = Postings.of(map(searched_text, fresh.chunks))
    return Bm25Index(corpus, Postings.together([counted, *(one.postings for one in kept)]))


def _within(values: Ints, end: int) -> None:
    if values.size and not (0 <= int(values.min()) and int(values.max()) < end):
        raise ValueError("out of bounds")
