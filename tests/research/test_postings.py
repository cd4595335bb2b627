"""Postings and indexed sources: put together they are what counting everything at once gives, and bm25s agrees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import SourceError
from agentflow.research.corpus import Corpus
from agentflow.research.indexed import IndexedSource, index_of, joined
from agentflow.research.lexicon import Vocabulary
from agentflow.research.postings import Postings
from agentflow.research.retrieval import Bm25Index
from agentflow.research.sources import Reading
from tests.research.made import made_source

WORDS = ["tide", "tides", "moon", "bay", "rises", "the", "of", "cake", "1,000", "über", "butter"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=12)
NOTES = "# Tides\n\nThe tide rises by sixteen metres.\n\n## Moon\n\nThe moon pulls the water of the bay — über all.\n"


def same(one: Postings, other: Postings) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("term", "chunk", "count"))
    return arrays and one.terms == other.terms and one.chunks == other.chunks


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_parts_together_are_the_whole(parts: list[list[str]]) -> None:
    whole = Postings.of([text for part in parts for text in part])
    assert same(Postings.together([Postings.of(part) for part in parts]), whole)


@given(TEXTS)
def test_scores_are_those_of_bm25s(texts: list[str]) -> None:
    postings, vocabulary = Postings.of(texts), Vocabulary()
    encoded = [vocabulary.encode(text) for text in texts]
    if not postings.terms:
        assert postings.scores(postings.frequency()).size == 0
        return
    peer: Any = bm25s.BM25(k1=1.5, b=0.75, method="lucene", backend="numpy")
    peer.index((encoded, vocabulary.numbers), create_empty_token=False, show_progress=False)
    scores = postings.scores(postings.frequency())
    for number, term in enumerate(postings.terms):
        mine = np.zeros(len(texts), np.float32)
        mine[postings.chunk[postings.term == number]] = scores[postings.term == number]
        np.testing.assert_allclose(mine, peer.get_scores_from_ids([vocabulary.numbers[term]]), rtol=1e-5)


def test_an_indexed_source_comes_back_from_its_bytes() -> None:
    made = IndexedSource.of(made_source(NOTES, title="On tides"), 60)
    back = IndexedSource.from_bytes(made.to_bytes()).named("s1", "s1.md")
    assert len(made.chunks) > 1 and back.source == made.source and back.chunks == made.chunks
    assert same(back.postings, made.postings)


def test_kept_sources_are_found_as_fresh_ones_are() -> None:
    sources = [made_source(f"{NOTES} Number{n} of them.", id=f"s{n}") for n in range(1, 5)]
    fresh, kept = sources[:1], [IndexedSource.of(source, 60) for source in sources[1:]]
    mixed, whole = (
        index_of(Corpus.build(fresh, chunk_chars=60), kept),
        Bm25Index.build(Corpus.build(sources, chunk_chars=60)),
    )
    for query in ("moon water", "number3", "how high do tides rise", "nothing of it"):
        assert mixed.search(query, 9) == whole.search(query, 9)
    assert mixed.lexicon.idf("moon") == whole.lexicon.idf("moon")


def test_sources_are_numbered_on_and_the_same_text_is_kept_once() -> None:
    read = made_source("The bay.", id="s1")
    kept = [IndexedSource.of(made_source(text), 60).named("", name) for text, name in
            [("The bay.", "col_1/bay.md"), ("The moon.", "col_1/moon.md"), ("The moon.", "col_2/moon.md")]]  # fmt: skip
    reading, taken = joined(Reading((read,), ()), kept)
    assert [(source.id, source.origin) for source in reading.sources] == [("s1", "s1.md"), ("s2", "col_1/moon.md")]
    assert [skipped.reason for skipped in reading.skipped] == ["same text as s1.md", "same text as col_1/moon.md"]
    assert [one.source.id for one in taken] == ["s2"] and taken[0].chunks[0].source is taken[0].source


def changed(**head: Any) -> bytes:
    """An index whose first line says something else."""
    line, _, rest = IndexedSource.of(made_source(NOTES), 60).to_bytes().partition(b"\n")
    return json.dumps({**json.loads(line), **head}).encode() + b"\n" + rest


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"[]\n", b"not json\n", b"[" * 100_000 + b"\n", changed(version=0), changed(text=-1),
        changed(text=10**9), changed(text="x"), changed(chunks=0), changed(headings=[]), changed(terms=["a"]),
        changed(terms=["b", "a"] * 20), changed(terms=None), changed() + b"0",
    ],
)  # fmt: skip
def test_an_index_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        IndexedSource.from_bytes(data)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 5_000))
def test_damaged_bytes_are_refused_or_harmless(flips: Sequence[tuple[int, int]], cut: int) -> None:
    data = bytearray(IndexedSource.of(made_source(NOTES), 60).to_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    for damaged in (bytes(data), bytes(data[: cut % len(data)])):
        try:
            loaded = IndexedSource.from_bytes(damaged)
        except SourceError:
            continue
        index_of(Corpus([], []), [loaded.named("s1", "x")]).search("moon tide", 5)
