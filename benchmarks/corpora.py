"""The retrieval corpora that may lie beside the project, and how well a ranking answers their questions.

Read by path, never copied: some of them may be evaluated locally only.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentflow.research.retrieval import Hit
from agentflow.research.sources.source import Source

DATA = Path(__file__).parents[2] / "shared" / "data" / "research"
# nDCG@10 that BM25, and a min-max hybrid over the full corpus, are known to reach.
BM25_BASELINES = {"scifact": 0.679, "cranfield": 0.385, "hipporag_hotpotqa_dev100": 0.793}
HYBRID_BASELINES = {"scifact": 0.734, "cranfield": 0.437, "hipporag_hotpotqa_dev100": 0.840}


@dataclass(frozen=True)
class JudgedCorpus:
    """Documents, questions, and the gain of each document for each question. A document's id is its source's id."""

    name: str
    sources: Sequence[Source]
    questions: dict[str, str]
    gains: dict[str, dict[str, float]]


def read_corpus(folder: Path) -> JudgedCorpus:
    """Read one corpus; questions without a relevant document are left out."""
    questions = folder / ("queries.jsonl" if (folder / "queries.jsonl").exists() else "claims_validation.jsonl")
    judgements = folder / ("qrels_test.tsv" if (folder / "qrels_test.tsv").exists() else "qrels_validation.tsv")
    gains: dict[str, dict[str, float]] = {}
    with judgements.open(newline="") as lines:
        for question, document, gain in list(csv.reader(lines, delimiter="\t"))[1:]:
            if float(gain) > 0:
                gains.setdefault(question, {})[document] = float(gain)
    asked = {str(row["_id"]): row["text"] for row in _rows(questions)}
    sources = [
        _source(str(row["_id"]), row.get("title") or "", row["text"] or "") for row in _rows(folder / "corpus.jsonl")
    ]
    return JudgedCorpus(folder.name, sources, {key: asked[key] for key in asked if key in gains}, gains)


def documents(hits: Sequence[Hit]) -> list[str]:
    """The documents of ranked chunks, each at the rank of its best chunk."""
    return list(dict.fromkeys(hit.chunk.source.id for hit in hits))


def ndcg(ranking: Sequence[str], gains: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain at ``k``, linear gains, as trec_eval's ndcg_cut.

    DCG = sum over ranks i of gain_i / log2(i + 1), divided by the DCG of the best order (Jarvelin and Kekalainen,
    TOIS 20(4), 2002, with the discount of every rank that trec_eval uses).
    """
    best = sorted(gains.values(), reverse=True)[:k]
    return _dcg([gains.get(document, 0.0) for document in ranking[:k]]) / _dcg(best)


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _source(id: str, title: str, text: str) -> Source:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Source(id, id, title, text, sha256, "2026-01-01T00:00:00+00:00", "text/plain")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
