"""Terms: how text becomes what is searched and compared, and how much each term tells. Imports nothing of agentflow.

One tokenisation serves the index, the synthesiser and the verification of citations: words of two or more characters
and numbers, lower-cased, English stop words out, Snowball-stemmed. ``hold_tokens`` is one word, ``agentflow.toml`` two;
``1,000`` is ``1000`` and ``0.5`` stays whole.
"""

from __future__ import annotations

import bisect
import functools
import math
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any, cast

import Stemmer

# Lucene's English list, which BM25 baselines use, and the words that ask.
STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
    "this to was will with how what why when where who whom whose which does do did".split()
)
# More words that tell nothing of what a question is about; they stay in the index.
QUESTION_WORDS = frozenset(
    "done were can could should would may might must has have had its i we you he she them our your his her me my from "
    "about between than so any some all been being many much long far often old happen "
    "happens tell describe explain give list name am us".split()
)
_WORDS = re.compile(r"\w+(?:(?<=\d)\.\d+)*").findall
# Begins with the comma, so that a text without one is passed over at the speed of a character search.
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
# Two forms of one word share at least so many letters, and differ by an ending of at most so many.
_SHARED_LETTERS, _ENDING_LETTERS = 6, 3
_stemmers = threading.local()


def words(text: str) -> list[str]:
    """The words and numbers of a text, lower-cased, in order; stop words and single letters are still in."""
    lower = text.lower()
    return _WORDS(_THOUSANDS.sub("", lower) if "," in lower else lower)


def tells(word: str) -> bool:
    """Whether a lower-cased word is searched for: no stop word, no single letter."""
    return word not in STOP_WORDS and (len(word) > 1 or word.isdigit())


@functools.lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The stem of one lower-cased word."""
    return _stemmer()(word)


def terms(text: str) -> list[str]:
    """The stems of a text's words, in order, stop words out.

    Example:
        >>> terms("Budgets are never overspent by 1,000 tokens")
        ['budget', 'never', 'overspent', '1000', 'token']
    """
    return [stem(word) for word in words(text) if tells(word)]


def question_terms(question: str) -> list[str]:
    """The stems of what a question is about, each once: words that only ask are left out."""
    asked = (word for word in words(question) if tells(word) and word not in QUESTION_WORDS)
    return list(dict.fromkeys(stem(word) for word in asked))


class Vocabulary:
    """Numbers the terms of a corpus while it is read: one look-up a word, each word stemmed once.

    It grows with the distinct words of one corpus and is let go with it. ``numbers`` maps each stem to its number; the
    empty stem has number 0 and stands in no text.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}
        self._known = _Known(self.numbers)

    def encode(self, text: str) -> list[int]:
        """The numbers of ``terms(text)``, in order."""
        return [number for number in map(self._known.__getitem__, words(text)) if number]


class _Known(dict[str, int]):
    """Word to the number of its stem; 0 for words that are not searched for."""

    def __init__(self, numbers: dict[str, int]) -> None:
        super().__init__()
        self._numbers = numbers
        self._stem = _stemmer()

    def __missing__(self, word: str) -> int:
        number = self._numbers.setdefault(self._stem(word), len(self._numbers)) if tells(word) else 0
        self[word] = number
        return number


# A corpus of a handful of chunks is weighed as if it had this many: else a single unknown word outweighs all others.
_FEWEST = 20


class Lexicon:
    """How telling each term is in one corpus.

    Args:
        document_frequency: in how many chunks each stem occurs.
        documents: how many chunks there are.
    """

    def __init__(self, document_frequency: Mapping[str, int], documents: int) -> None:
        self._frequency = document_frequency
        self._documents = max(documents, _FEWEST)
        self._sorted: list[str] | None = None

    def idf(self, term: str) -> float:
        """Inverse document frequency, Lucene's form: ln(1 + (n - df + 0.5) / (df + 0.5)); highest when unseen."""
        frequency = self._frequency.get(term, 0)
        return math.log1p((self._documents - frequency + 0.5) / (frequency + 0.5))

    def knows(self, term: str) -> bool:
        """Whether the corpus has this stem at all."""
        return self._frequency.get(term, 0) > 0

    def known_form(self, term: str) -> str:
        """The stem itself, or the corpus's own form of it where Snowball parts two forms of one word.

        "overspending" becomes ``overspend``, "overspent" ``oversp``. A form is another when the one begins with the
        other, shares six letters with it and is at most three longer; the nearest is taken, then the most frequent. A
        stem without such a form comes back as it is.
        """
        if self.knows(term) or len(term) < _SHARED_LETTERS or not term.isalpha():
            return term
        shorter = [term[:-cut] for cut in range(1, _ENDING_LETTERS + 1) if len(term) - cut >= _SHARED_LETTERS]
        forms = [form for form in (*shorter, *self._longer(term)) if self.knows(form)]
        return min(forms, key=lambda form: (abs(len(form) - len(term)), -self._frequency[form], form), default=term)

    def _longer(self, term: str) -> list[str]:
        """Stems that begin with this one and are a few letters longer."""
        if self._sorted is None:
            self._sorted = sorted(self._frequency)
        first = bisect.bisect_left(self._sorted, term)
        last = bisect.bisect_left(self._sorted, term + "\U0010ffff", first)
        most = len(term) + _ENDING_LETTERS
        return [form for form in self._sorted[first:last] if len(form) <= most and form.isalpha()]

    def weight(self, stems: Iterable[str]) -> float:
        """The summed idf of a set of stems."""
        return math.fsum(self.idf(term) for term in stems)

    def overlap(self, wanted: Iterable[str], found: Iterable[str]) -> float:
        """The share of the weight of ``wanted`` that ``found`` covers, 0 to 1; 0 when nothing is wanted."""
        wanted = set(wanted)
        whole = self.weight(wanted)
        return self.weight(wanted & set(found)) / whole if whole else 0.0


def _stemmer() -> Any:
    """This thread's Snowball stemmer for English: the library's object may not be shared between threads."""
    try:
        return _stemmers.english
    except AttributeError:
        _stemmers.english = cast(Any, Stemmer).Stemmer("english").stemWord
        return _stemmers.english
