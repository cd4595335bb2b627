"""Terms: how text becomes what is searched and compared, and how much each term tells. Imports nothing of agentflow.

One tokenisation serves the index, the synthesiser and the verification of citations: words of two or more
characters, lower-cased, English stop words out, Snowball-stemmed.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import Stemmer

TOKEN_PATTERN = r"(?u)\b\w\w+\b"
# Lucene's English list, which BM25 baselines use, and the words that ask.
STOP_WORDS = tuple(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
    "this to was will with how what why when where who whom whose which does do did".split()
)
# More words that tell nothing of what a question is about; they stay in the index.
QUESTION_WORDS = frozenset(
    "done were can could should would may might must has have had its i we you he she them our your his her me my from about "
    "between than so any some all been being happen happens tell describe explain give list name am us".split()
)
_TOKEN = re.compile(TOKEN_PATTERN)
_STOP = frozenset(STOP_WORDS)


def stemmer() -> Any:
    """A Snowball stemmer for English. Not shared between threads: the library's object is not safe there."""
    return cast(Any, Stemmer).Stemmer("english")


@functools.lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The stem of one lower-cased word."""
    return stemmer().stemWord(word)


def terms(text: str) -> list[str]:
    """The stems of a text's words, in order, stop words out.

    Example:
        >>> terms("Budgets are never overspent")
        ['budget', 'never', 'overspent']
    """
    return [stem(word) for word in _TOKEN.findall(text.lower()) if word not in _STOP]


def question_terms(question: str) -> list[str]:
    """The stems of what a question is about, each once: words that only ask are left out."""
    words = (word for word in _TOKEN.findall(question.lower()) if word not in _STOP and word not in QUESTION_WORDS)
    return list(dict.fromkeys(stem(word) for word in words))


class Lexicon:
    """How telling each term is in one corpus.

    Args:
        document_frequency: in how many chunks each stem occurs.
        documents: how many chunks there are.
    """

    def __init__(self, document_frequency: Mapping[str, int], documents: int) -> None:
        self._frequency = document_frequency
        self._documents = max(documents, 1)

    def idf(self, term: str) -> float:
        """Inverse document frequency, Lucene's form: ln(1 + (n - df + 0.5) / (df + 0.5)); highest when unseen."""
        frequency = self._frequency.get(term, 0)
        return math.log1p((self._documents - frequency + 0.5) / (frequency + 0.5))

    def knows(self, term: str) -> bool:
        """Whether the corpus has this stem at all."""
        return self._frequency.get(term, 0) > 0

    def weight(self, stems: Iterable[str]) -> float:
        """The summed idf of a set of stems."""
        return math.fsum(self.idf(term) for term in stems)

    def overlap(self, wanted: Iterable[str], found: Iterable[str]) -> float:
        """The share of the weight of ``wanted`` that ``found`` covers, 0 to 1; 0 when nothing is wanted."""
        wanted = set(wanted)
        whole = self.weight(wanted)
        return self.weight(wanted & set(found)) / whole if whole else 0.0
