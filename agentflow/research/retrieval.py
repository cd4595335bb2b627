"""Retrieval: BM25 over chunks by bm25s, and its best few hundred re-scored by an embedder where there is one.

Embedding a whole corpus on a CPU is too slow; embedding what BM25 already found is not. Imports corpus, lexicon,
embedders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bm25s
import numpy as np

from agentflow.research.corpus import Chunk, Corpus
from agentflow.research.embedders import Embedder
from agentflow.research.lexicon import STOP_WORDS, TOKEN_PATTERN, Lexicon, stemmer

# Lucene's BM25 with bm25s's defaults: one setting for every corpus. A title counts twice: it says what a text is about.
_K1, _B = 1.5, 0.75
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

    Example:
        >>> index = Bm25Index.build(corpus)                  # doctest: +SKIP
        >>> index.search("how is a budget held?", k=5)[0].chunk.text
    """

    def __init__(self, corpus: Corpus, retriever: Any, lexicon: Lexicon) -> None:
        self.corpus = corpus
        self.lexicon = lexicon
        self._retriever = retriever

    @classmethod
    def build(cls, corpus: Corpus) -> Bm25Index:
        """Index every chunk of a corpus. Deterministic; runs on one core."""
        texts = [f"{chunk.source.title} {chunk.source.title} {chunk.heading} {chunk.text}" for chunk in corpus.chunks]
        tokens = _tokens(texts)
        retriever = bm25s.BM25(k1=_K1, b=_B, method="lucene")
        retriever.index(tokens, show_progress=False)
        frequency = np.diff(retriever.scores["indptr"])
        counts = {term: int(frequency[number]) for term, number in retriever.vocab_dict.items() if number < len(frequency)}
        return cls(corpus, retriever, Lexicon(counts, len(texts)))

    def search(self, query: str, k: int) -> list[Hit]:
        """The ``k`` best chunks, best first, ties in the order of the corpus; none that match no term."""
        return self.search_many([query], k)[0]

    def search_many(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Search for several queries at once."""
        chunks = self.corpus.chunks
        k = min(k, len(chunks))
        if k == 0:
            return [[] for _ in queries]
        numbers, scores = self._retriever.retrieve(_tokens(list(queries)), k=k, show_progress=False)
        results: list[list[Hit]] = []
        for row, values in zip(numbers.tolist(), scores.tolist(), strict=True):
            ranked = sorted((-score, number) for number, score in zip(row, values, strict=True) if score > 0.0)
            results.append([Hit(chunks[number], -negated) for negated, number in ranked])
        return results


async def fuse(index: Bm25Index, embedder: Embedder, query: str, k: int, candidates: int = CANDIDATES) -> list[Hit]:
    """BM25's best ``candidates``, re-scored by an embedder.

    Returns:
        The ``k`` best by the mean of both scores, each min-max normalised over the candidates.
    """
    found = index.search(query, candidates)
    if len(found) < 2:
        return found
    vectors = await embedder.embed([query, *(hit.chunk.text for hit in found)])
    meaning = _min_max(vectors[1:] @ vectors[0])
    words = _min_max(np.array([hit.score for hit in found], dtype=np.float32))
    fused = (1.0 - _EMBEDDER_SHARE) * words + _EMBEDDER_SHARE * meaning
    order = np.argsort(-fused, kind="stable")[:k]
    return [Hit(found[place].chunk, float(fused[place])) for place in order.tolist()]


def _tokens(texts: list[str]) -> Any:
    return bm25s.tokenize(
        texts, token_pattern=TOKEN_PATTERN, stopwords=list(STOP_WORDS), stemmer=stemmer(), show_progress=False
    )


def _min_max(scores: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    low, high = float(scores.min()), float(scores.max())
    return (scores - low) / (high - low) if high > low else np.zeros_like(scores)
