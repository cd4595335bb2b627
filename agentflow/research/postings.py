"""Postings: which terms stand how often in which chunk, and what BM25 makes of them. Imports lexicon.

They hold counts, not scores, because a score depends on the whole corpus and a count on its chunk alone: so sources
that were counted long ago are put together with new ones without reading anything again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

import numpy as np

from agentflow.research.lexicon import Vocabulary

Ints = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
# BM25's usual parameters: one setting for every corpus.
_K1, _B = 1.5, 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """The counts of a row of chunks, numbered from 0.

    Args:
        terms: every stem that stands in them, in the order of the alphabet.
        chunks: how many chunks there are, empty ones included.
        term: of each posting the place of its stem in ``terms``; rising.
        chunk: its chunk; rising within a term.
        count: how often the stem stands there.
    """

    terms: tuple[str, ...]
    chunks: int
    term: Ints
    chunk: Ints
    count: Ints

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Count the terms of texts, one chunk each. Deterministic; runs on one core."""
        vocabulary = Vocabulary()
        encoded = [vocabulary.encode(text) for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        # The empty stem, number 0, stands nowhere.
        terms = sorted(vocabulary.numbers)[1:]
        places = np.zeros(len(terms) + 1, np.int64)
        places[[vocabulary.numbers[term] for term in terms]] = np.arange(len(terms))
        found = places[np.fromiter(chain.from_iterable(encoded), np.int64, int(lengths.sum()))]
        chunk = np.repeat(np.arange(len(encoded), dtype=np.int64), lengths)
        standing, count = np.unique(found * max(len(encoded), 1) + chunk, return_counts=True)
        term, chunk = np.divmod(standing, max(len(encoded), 1))
        return cls(tuple(terms), len(encoded), _ints(term), _ints(chunk), _ints(count))

    @classmethod
    def together(cls, parts: Sequence[Postings]) -> Postings:
        """The postings of all chunks of several, the first one's first: the same as counting all of them at once."""
        if len(parts) == 1:
            return parts[0]
        terms = tuple(sorted(set(chain.from_iterable(part.terms for part in parts))))
        numbers = {term: number for number, term in enumerate(terms)}
        firsts = np.cumsum([0, *(part.chunks for part in parts)])
        term = _joined([_ints([numbers[t] for t in part.terms])[part.term] for part in parts])
        chunk = _joined([part.chunk + _ints(first) for part, first in zip(parts, firsts, strict=False)])
        # Each part rises already: a stable sort merges them, and leaves equal terms in the order of the parts.
        order = np.argsort(term, kind="stable")
        count = _joined([part.count for part in parts])
        return cls(terms, int(firsts[-1]), term[order], chunk[order], count[order])

    def frequency(self) -> Ints:
        """In how many chunks each term stands."""
        return _ints(np.bincount(self.term, minlength=len(self.terms)))

    def scores(self, frequency: Ints) -> Floats:
        """BM25 of each posting, as Lucene reckons it.

        idf * count / (count + k1 (1 - b + b length / mean length)), with idf = ln(1 + (n - df + 0.5) / (df + 0.5)) and
        lengths in terms: Kamphuis et al., Which BM25 do you mean?, ECIR 2020.

        Args:
            frequency: as ``frequency`` gives it.
        """
        if not len(self.term):
            return np.zeros(0, np.float32)
        lengths = np.bincount(self.chunk, weights=self.count, minlength=self.chunks)
        norms = _K1 * (1.0 - _B + _B * lengths / lengths.mean())
        idf = np.log1p((self.chunks - frequency + 0.5) / (frequency + 0.5))
        return (idf[self.term] * self.count / (self.count + norms[self.chunk])).astype(np.float32)


def _ints(values: Any) -> Ints:
    return np.asarray(values, dtype=np.int32)


def _joined(arrays: Sequence[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
