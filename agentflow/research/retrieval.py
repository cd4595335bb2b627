"""Retrieval: BM25 over chunks, and its best few hundred re-scored by an embedder where there is one.

Embedding a whole corpus on a CPU is too slow; embedding what BM25 already found is not. Imports corpus, postings,
lexicon, embedders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from agentflow.research.corpus import Chunk, Corpus
from agentflow.research.embedders import Embedder, Vectors
from agentflow.research.lexicon import Lexicon, terms
from agentflow.research.postings import Postings

CANDIDATES = 300
# The share of the embedder in a fused score, both parts min-max normalised over the candidates.
_EMBEDDER_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that matches a query, and how well; scores compare within one search only."""

    chunk: Chunk
    score: float


class Bm25Index:
    """An inverted index over the chunks of a corpus, each searched with its title and headings.

    Postings are int32, scores float32. An index is read-only once built: any number of threads may search it.

    Example:
        >>> index = Bm25Index.build(corpus)                  # doctest: +SKIP
        >>> index.search("how is a budget held?", k=5)[0].chunk.text
    """

    def __init__(self, corpus: Corpus, postings: Postings) -> None:
        self.corpus = corpus
        frequency = postings.frequency()
        self._numbers = {term: number for number, term in enumerate(postings.terms)}
        self._starts = np.concatenate([[0], np.cumsum(frequency)])
        self._chunk, self._score = postings.chunk, postings.scores(frequency)
        self.lexicon = Lexicon(dict(zip(postings.terms, frequency.tolist(), strict=True)), len(corpus.chunks))

    @classmethod
    def build(cls, corpus: Corpus) -> Bm25Index:
        """Index every chunk of a corpus. Deterministic; runs on one core."""
        return cls(corpus, Postings.of(map(searched_text, corpus.chunks)))

    def search(self, query: str, k: int) -> list[Hit]:
        """The ``k`` best chunks, best first, ties in the order of the corpus; none that match no term."""
        known = map(self.lexicon.known_form, terms(query))
        numbers = [self._numbers[term] for term in known if term in self._numbers]
        if not numbers or k <= 0:
            return []
        scores = np.zeros(len(self.corpus.chunks), dtype=np.float32)
        for number in numbers:
            standing = slice(self._starts[number], self._starts[number + 1])
            scores[self._chunk[standing]] += self._score[standing]
        chunks = self.corpus.chunks
        return [Hit(chunks[place], float(scores[place])) for place in _best(scores, k)]

    def search_many(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """``search`` for each of several queries."""
        return [self.search(query, k) for query in queries]


async def fuse(index: Bm25Index, embedder: Embedder, query: str, k: int, candidates: int = CANDIDATES) -> list[Hit]:
    """BM25's best ``candidates``, re-scored by an embedder.

    Returns:
        The ``k`` best by the mean of both scores, each min-max normalised over the candidates.
    """
    found = index.search(query, max(candidates, k))
    if len(found) < 2:
        return found[:k]
    vectors = await embedder.embed([query, *(hit.chunk.text for hit in found)])
    meaning = _min_max(vectors[1:] @ vectors[0])
    matching = _min_max(np.array([hit.score for hit in found], dtype=np.float32))
    fused = (1.0 - _EMBEDDER_SHARE) * matching + _EMBEDDER_SHARE * meaning
    order = cast(list[int], np.argsort(-fused, kind="stable")[:k].tolist())
    return [Hit(found[place].chunk, float(fused[place])) for place in order]


def searched_text(chunk: Chunk) -> str:
    """What of a chunk is searched: its title twice, for it says what a text is about; the headings above; its text."""
    return f"{chunk.source.title} {chunk.source.title} {chunk.heading} {chunk.text}"


def _best(scores: Vectors, k: int) -> list[int]:
    """Places of the ``k`` highest scores above zero, highest first; of equal scores the earlier place first."""
    if k < len(scores):
        threshold = max(float(np.partition(scores, -k)[-k]), 0.0)
        places = np.flatnonzero((scores >= threshold) & (scores > 0.0))
    else:
        places = np.flatnonzero(scores > 0.0)
    return cast(list[int], places[np.argsort(-scores[places], kind="stable")][:k].tolist())


def _min_max(scores: Vectors) -> Vectors:
    low, high = float(scores.min()), float(scores.max())
    return (scores - low) / (high - low) if high > low else np.zeros_like(scores)
