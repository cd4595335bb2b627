from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.research.corpus import Corpus
from agentflow.research.embedders import Vectors
from agentflow.research.lexicon import terms
from agentflow.research.retrieval import Bm25Index, fuse
from tests.research.made import made_corpus, made_source

TEXTS = (
    "A hold reserves tokens before a call leaves.",
    "The ledger keeps finished calls.",
    "Energy is modelled with an interval in joules.",
    "The ledger keeps holds, and holds again.",
)


def found(index: Bm25Index, query: str, k: int = 10) -> list[str]:
    return [hit.chunk.source.id for hit in index.search(query, k)]


def test_the_chunk_that_speaks_of_the_query_comes_first() -> None:
    index = Bm25Index.build(made_corpus(*TEXTS))
    assert found(index, "How many joules of energy?") == ["s3"]
    assert found(index, "Which ledger keeps the holds?") == ["s4", "s2", "s1"]


def test_chunks_that_match_no_term_are_left_out() -> None:
    index = Bm25Index.build(made_corpus(*TEXTS))
    for query in ("volcano", "", "the of and", "?!"):
        assert index.search(query, 5) == []


def test_titles_and_headings_are_searched() -> None:
    titled = made_source("Nothing of it here.", id="s1", title="Volcanoes of Iceland")
    headed = made_source("# Glaciers\n\nNothing of it here either.", id="s2")
    index = Bm25Index.build(Corpus.build([titled, headed]))
    assert found(index, "volcano") == ["s1"]
    assert found(index, "glacier") == ["s2"]


def test_equal_scores_come_in_the_order_of_the_corpus_whatever_k_is() -> None:
    index = Bm25Index.build(made_corpus(*["the same words"] * 40, "same words but longer text here"))
    for k in (1, 2, 7, 39, 40, 41, 100):
        assert found(index, "same words", k) == [f"s{n}" for n in range(1, 42)][:k]


@given(
    st.lists(st.lists(st.sampled_from("aa bb cc dd ee".split()), max_size=6), min_size=1, max_size=12),
    st.integers(0, 14),
)
def test_search_is_the_head_of_the_full_ranking(texts: list[list[str]], k: int) -> None:
    index = Bm25Index.build(made_corpus(*(" ".join(words) for words in texts)))
    everything = index.search("aa bb cc", 1_000)
    assert index.search("aa bb cc", k) == everything[:k]
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
    matching = {chunk for chunk in index.corpus.chunks if {"aa", "bb", "cc"} & set(chunk.text.split())}
    assert {hit.chunk for hit in everything} == matching


def test_the_lexicon_counts_chunks_of_the_index() -> None:
    index = Bm25Index.build(made_corpus(*TEXTS))
    assert index.lexicon.knows("ledger")
    assert not index.lexicon.knows("volcano")
    assert not index.lexicon.knows("")
    assert index.lexicon.idf("ledger") == pytest.approx(np.log(1 + 18.5 / 2.5)), "a small corpus weighs as one of 20"


def test_a_query_finds_other_forms_of_its_words() -> None:
    index = Bm25Index.build(made_corpus("Budgets cannot be overspent.", "Something else."))
    assert terms("overspending") != terms("overspent")
    assert found(index, "overspending") == ["s1"]


@pytest.mark.parametrize("texts", [(), ("",), ("the of and",), ("?!",)])
def test_a_corpus_without_terms_is_searched_in_vain(texts: tuple[str, ...]) -> None:
    index = Bm25Index.build(made_corpus(*texts))
    assert index.search("anything", 5) == []
    assert index.search_many(["anything", ""], 5) == [[], []]
    assert not index.lexicon.knows("anything")


def test_threads_search_alike() -> None:
    index = Bm25Index.build(made_corpus(*(f"word{n % 7} word{n % 11} common" for n in range(300))))
    queries = [f"word{n} common" for n in range(11)] * 5
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda query: index.search(query, 9), queries)) == index.search_many(queries, 9)


class Directed:
    """Unit vectors in two dimensions, by the first word of a text that is known."""

    name = "directed"

    def __init__(self, **angles: float) -> None:
        self.angles = angles
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked = list(texts)
        angles = [
            next((self.angles[word] for word in text.lower().split() if word in self.angles), 0.0) for text in texts
        ]
        return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], dtype=np.float32)

    async def aclose(self) -> None: ...


async def test_an_embedder_lifts_what_means_the_same() -> None:
    index = Bm25Index.build(made_corpus("bank bank bank river shore", "bank money", "bank lake shore", "nothing here"))
    assert found(index, "bank")[0] == "s1"
    embedder = Directed(money=0.1, river=1.5, lake=1.5)
    fused = await fuse(index, embedder, "bank", 3)
    assert fused[0].chunk.source.id == "s2"
    assert all(0.0 <= hit.score <= 1.0 for hit in fused)
    assert "nothing here" not in embedder.asked


async def test_only_the_best_candidates_are_embedded() -> None:
    index = Bm25Index.build(made_corpus(*(f"common word{n}" for n in range(50))))
    embedder = Directed()
    assert len(await fuse(index, embedder, "common", 5, candidates=12)) == 5
    assert len(embedder.asked) == 13


async def test_fusing_few_hits_needs_no_embedder() -> None:
    index = Bm25Index.build(made_corpus(*TEXTS))
    embedder = Directed()
    assert await fuse(index, embedder, "volcano", 5) == []
    assert [hit.chunk.source.id for hit in await fuse(index, embedder, "joules", 5)] == ["s3"]
    assert embedder.asked == []
