from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.research.lexicon import Lexicon, Vocabulary, question_terms, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Budgets are never overspent", ["budget", "never", "oversp"]),
        ("call hold_tokens first", ["call", "hold_token", "first"]),
        ("read agentflow.toml", ["read", "agentflow", "toml"]),
        ("1,000 tokens", ["1000", "token"]),
        ("1,234,567 J", ["1234567"]),
        ("rows 12,34 and a,5", ["row", "12", "34", "5"]),
        ("from 0.5 to 5 joules", ["from", "0.5", "5", "joul"]),
        ("It was 5. Then 6", ["5", "6"]),
        ("naïve Müller in Zürich", ["naïv", "müller", "zürich"]),
        ("日本語 テスト", ["日本語", "テスト"]),
        ("which of these does it", []),
        ("", []),
    ],
)
def test_terms_keep_what_tells(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_a_number_is_the_same_with_and_without_separators() -> None:
    assert terms("costs 12,500 tokens") == terms("costs 12500 tokens")


def test_question_terms_leave_out_words_that_only_ask() -> None:
    assert question_terms("Can you explain how the budgets of a budget work?") == ["budget", "work"]


@given(st.lists(st.text(max_size=60), max_size=5))
def test_a_vocabulary_encodes_exactly_the_terms(texts: list[str]) -> None:
    vocabulary = Vocabulary()
    encoded = [vocabulary.encode(text) for text in texts]
    stems = {number: stem for stem, number in vocabulary.numbers.items()}
    assert [[stems[number] for number in numbers] for numbers in encoded] == [terms(text) for text in texts]
    assert sorted(stems) == list(range(len(stems)))


def test_threads_stem_alike() -> None:
    words = [f"running{n} connections{n} generously{n}" for n in range(500)]
    alone = [terms(word) for word in words]
    Lexicon({}, 0)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(terms, words * 2)) == alone * 2


def test_a_rarer_term_tells_more_and_an_unseen_one_most() -> None:
    lexicon = Lexicon({"common": 90, "rare": 2}, 100)
    assert lexicon.idf("common") < lexicon.idf("rare") < lexicon.idf("unseen")
    assert lexicon.idf("rare") == pytest.approx(math.log(1 + 98.5 / 2.5))
    assert lexicon.knows("rare")
    assert not lexicon.knows("unseen")


def test_overlap_is_the_share_of_weight() -> None:
    lexicon = Lexicon({"one": 5, "two": 5}, 10)
    assert lexicon.overlap(["one", "two"], ["one"]) == pytest.approx(0.5)
    assert lexicon.overlap([], ["one"]) == 0.0


@pytest.mark.parametrize(
    ("term", "known", "expected"),
    [
        ("overspend", "oversp", "oversp"),
        ("oversp", "overspend", "overspend"),
        ("budget", "budget", "budget"),
        ("contrast", "contract", "contrast"),
        ("oper", "opera", "oper"),
        ("model2023", "model20", "model2023"),
    ],
)
def test_a_term_takes_the_form_that_the_corpus_knows(term: str, known: str, expected: str) -> None:
    assert Lexicon({known: 1}, 1).known_form(term) == expected
