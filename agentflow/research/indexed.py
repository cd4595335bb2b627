"""Indexed sources: one source read, cut and counted, as bytes that are kept and loaded again. Imports corpus, postings.

What a job makes of a source depends on its text alone until corpora are put together, so it is made once. The bytes are
a NumPy archive of plain arrays, with the words as JSON; whatever is not exactly that is refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Self, cast

import numpy as np

from agentflow.errors import SourceError
from agentflow.research.corpus import Chunk, Corpus
from agentflow.research.postings import Ints, Postings
from agentflow.research.retrieval import Bm25Index, searched_text
from agentflow.research.sources.source import Reading, Skipped, Source

# Goes up with every change of what is made of a text: of extraction, cutting, stemming, or of these bytes.
VERSION: Final = 1
_FACTS: Final = ("title", "sha256", "read_at", "media_type")
_LONGEST: Final = 2**31 - 1


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
        return IndexedSource(source, tuple(replace(chunk, source=source) for chunk in self.chunks), self.postings)

    def to_bytes(self) -> bytes:
        """What ``from_bytes`` reads."""
        headings = {text: number for number, text in enumerate(dict.fromkeys(chunk.heading for chunk in self.chunks))}
        spans = [(chunk.start, chunk.end, headings[chunk.heading]) for chunk in self.chunks]
        facts = {name: getattr(self.source, name) for name in _FACTS}
        words = {"version": VERSION, **facts, "headings": list(headings), "terms": self.postings.terms}
        buffer = io.BytesIO()
        np.savez(
            buffer,
            words=_bytes(json.dumps(words).encode("ascii")),
            text=_bytes(self.source.text.encode("utf-8")),
            spans=np.array(spans, np.int32).reshape(-1, 3),
            postings=np.stack([self.postings.term, self.postings.chunk, self.postings.count]),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote; the source has no id and no origin yet.

        Raises:
            SourceError: they are of another version, or are no such thing.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return cls._read(archive)
        except (ValueError, KeyError, TypeError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(
                f"An index of a source cannot be read ({type(error).__name__}). It is made anew."
            ) from error

    @classmethod
    def _read(cls, archive: Mapping[str, Any]) -> Self:
        words = json.loads(archive["words"].tobytes())
        if words["version"] != VERSION:
            raise ValueError("of another version")
        text = archive["text"].tobytes().decode("utf-8")
        facts = {name: str(words[name]) for name in _FACTS}
        source = Source(id="", origin="", text=text, **facts)
        spans, postings = _table(archive["spans"].T), _table(archive["postings"])
        headings, terms = [str(one) for one in words["headings"]], tuple(str(one) for one in words["terms"])
        term, chunk, count = postings
        _within(spans[:2], len(text) + 1)
        _within(spans[2], len(headings))
        _within(term, len(terms))
        _within(chunk, spans.shape[1])
        _within(count, _LONGEST)
        if (np.diff(term) < 0).any() or list(terms) != sorted(set(terms)):
            raise ValueError("not in order")
        begins, ends, numbers = cast("list[list[int]]", spans.tolist())
        chunks = tuple(
            Chunk(source, start, end, headings[number])
            for start, end, number in zip(begins, ends, numbers, strict=True)
        )
        return cls(source, chunks, Postings(terms, len(chunks), term, chunk, count))


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


def joined(reading: Reading, kept: Sequence[IndexedSource]) -> tuple[Reading, tuple[IndexedSource, ...]]:
    """What was read and what was kept as one reading: numbered on, and the same text once."""
    seen = {source.sha256: source.origin for source in reading.sources}
    taken, skipped = list[IndexedSource](), list(reading.skipped)
    for one in kept:
        origin = one.source.origin
        first = seen.setdefault(one.source.sha256, origin)
        if first is origin:
            taken.append(one.named(f"s{len(reading.sources) + len(taken) + 1}", origin))
        else:
            skipped.append(Skipped(origin, f"same text as {first}"))
    return Reading((*reading.sources, *(one.source for one in taken)), tuple(skipped)), tuple(taken)


def index_of(fresh: Corpus, kept: Sequence[IndexedSource]) -> Bm25Index:
    """One index over sources that were just read and over those that were kept, which are not counted again."""
    sources = [*fresh.sources, *(one.source for one in kept)]
    corpus = Corpus(sources, [*fresh.chunks, *(chunk for one in kept for chunk in one.chunks)])
    counted = Postings.of(map(searched_text, fresh.chunks))
    return Bm25Index(corpus, Postings.together([counted, *(one.postings for one in kept)]))


def _bytes(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8)


def _table(array: Any) -> Ints:
    if array.dtype != np.int32 or array.ndim != 2 or len(array) != 3:
        raise ValueError("not the arrays of an index")
    return array


def _within(values: Ints, end: int) -> None:
    if values.size and not (0 <= int(values.min()) and int(values.max()) < end):
        raise ValueError("out of bounds")
