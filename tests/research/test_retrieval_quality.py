"""How well the index ranks, on judged corpora that may lie beside the project."""

from __future__ import annotations

import statistics

import pytest

from agentflow.research.corpus import Corpus
from agentflow.research.retrieval import Bm25Index
from benchmarks.corpora import BM25_BASELINES, DATA, documents, ndcg, read_corpus


def test_ndcg_of_known_rankings() -> None:
    gains = {"a": 1.0, "b": 1.0}
    assert ndcg(["a", "b"], gains) == pytest.approx(1.0)
    assert ndcg(["x", "a"], {"a": 1.0}) == pytest.approx(0.6309, abs=1e-4)
    assert ndcg(["x", "y"], gains) == 0.0
    assert ndcg(["x"] * 10 + ["a"], {"a": 1.0}) == 0.0


@pytest.mark.parametrize("name", ["hipporag_hotpotqa_dev100", "cranfield"])
def test_ranking_is_not_below_the_bm25_baseline(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no corpus {name} in {DATA}")
    judged = read_corpus(DATA / name)
    index = Bm25Index.build(Corpus.build(judged.sources))
    found = index.search_many(list(judged.questions.values()), 50)
    scores = [ndcg(documents(hits), judged.gains[q]) for q, hits in zip(judged.questions, found, strict=True)]
    assert statistics.fmean(scores) >= BM25_BASELINES[name]
