"""When code alone answers, and what its verification lets through: ``python -m benchmarks.answers [--json]``

Questions are asked of their own corpus, of an unrelated one, and of their own with every relevant passage taken out.
Claims with known labels are verified against their evidence. Corpora that are not there are skipped with a line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from agentflow.research.citations import why_unsupported
from agentflow.research.corpus import Corpus
from agentflow.research.evidence import Evidence
from agentflow.research.lexicon import Lexicon, terms
from agentflow.research.retrieval import Bm25Index
from agentflow.research.synthesis import ANSWERABLE_THRESHOLD, coverage
from benchmarks.corpora import BM25_BASELINES, DATA, JudgedCorpus, read_corpus
from benchmarks.table import Figure, show

OWN_AT_LEAST, UNRELATED_AT_MOST = 0.70, 0.10
_PASSAGES = 8


def main() -> int:
    """Run what the data there is allows, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the corpora")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    corpora = {name: read_corpus(asked.data / name) for name in BM25_BASELINES if (asked.data / name).is_dir()}
    figures = answered(corpora)
    notes = [f"{name} skipped: not in {asked.data}" for name in BM25_BASELINES if name not in corpora]
    claims = asked.data / "wice" / "oracle_chunks_claim_dev.jsonl"
    if claims.is_file():
        figures += verified(claims)
    else:
        notes.append(f"wice skipped: not in {asked.data}")
    return show(f"answers (threshold {ANSWERABLE_THRESHOLD})", figures, notes, as_json=asked.json)


def answered(corpora: dict[str, JudgedCorpus]) -> list[Figure]:
    """The share of questions that code would answer, of their own corpus and of every other."""
    indexes = {name: Bm25Index.build(Corpus.build(corpus.sources)) for name, corpus in corpora.items()}
    figures: list[Figure] = []
    for name, corpus in corpora.items():
        questions = list(corpus.questions.values())
        for searched, index in indexes.items():
            share = _share(index, questions)
            own = searched == name
            limit = f"at least {OWN_AT_LEAST:.0%}" if own else f"at most {UNRELATED_AT_MOST:.0%}"
            passed = share >= OWN_AT_LEAST if own else share <= UNRELATED_AT_MOST
            figures.append(Figure(f"{name} asked of {searched}", f"{share:.1%}", limit, passed))
        relevant = {document for gains in corpus.gains.values() for document in gains}
        left = [source for source in corpus.sources if source.id not in relevant]
        share = _share(Bm25Index.build(Corpus.build(left)), questions)
        figures.append(Figure(f"{name} asked of itself without its relevant passages", f"{share:.1%}", "reported"))
    return figures


def _share(index: Bm25Index, questions: Sequence[str]) -> float:
    found = index.search_many(questions, _PASSAGES)
    covered = [
        coverage(question, Evidence.gather(question, [question], [hits], _PASSAGES).passages, index.lexicon)
        for question, hits in zip(questions, found, strict=True)
    ]
    return sum(share >= ANSWERABLE_THRESHOLD for share in covered) / len(covered)


def verified(path: Path) -> list[Figure]:
    """The share of claims that verification lets through, by what people say of them."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    frequency: dict[str, int] = {}
    for row in rows:
        for term in set(terms(" ".join(row["evidence"]))):
            frequency[term] = frequency.get(term, 0) + 1
    lexicon = Lexicon(frequency, len(rows))
    passed: dict[str, list[bool]] = {}
    for row in rows:
        passed.setdefault(row["label"], []).append(why_unsupported(row["claim"], row["evidence"], lexicon) is None)
    return [
        Figure(
            f"wice claims that people call {label}, let through",
            f"{sum(found) / len(found):.1%} of {len(found)}",
            "reported",
        )
        for label, found in sorted(passed.items())
    ]


if __name__ == "__main__":
    sys.exit(main())
