"""How fast the research job retrieves, how well it ranks, and what a whole job takes: ``python -m benchmarks.research``

Ratios are of medians taken alternately in one run. Exit code 1 when a limit is missed; corpora that are not there are
skipped with a line that says so.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import bm25s
import Stemmer

from agentflow.research.corpus import Corpus
from agentflow.research.embedders import SentenceTransformersEmbedder
from agentflow.research.lexicon import STOP_WORDS
from agentflow.research.retrieval import Bm25Index, fuse, searched_text
from benchmarks.corpora import (
    BM25_BASELINES,
    DATA,
    HYBRID_BASELINES,
    JudgedCorpus,
    documents,
    ndcg,
    read_corpus,
)
from benchmarks.table import Figure, show

RATIO_LIMIT = 1.3
JOB_SECONDS, JOB_MEGABYTES, JOB_DOCUMENTS = 5.0, 500.0, 1_000
_ROUNDS = 7
_HITS = 10
# Chunks ranked for the ten best documents: a document may have several.
_RANKED_CHUNKS = 50


def main() -> int:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the judged corpora")
    parser.add_argument("--embedder", help="a sentence-transformers model: its hybrid is reported too")
    parser.add_argument("--no-job", action="store_true", help="leave the end-to-end job out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    figures: list[Figure] = []
    notes: list[str] = []
    if asked.embedder and importlib.util.find_spec("sentence_transformers") is None:
        notes.append("hybrid skipped: pip install 'agentflow[embeddings]'")
        asked.embedder = None
    elif not asked.embedder:
        notes.append("hybrid skipped: name a model with --embedder (extra 'embeddings')")
    for name in BM25_BASELINES:
        if not (asked.data / name).is_dir():
            notes.append(f"{name} skipped: not in {asked.data}")
            continue
        judged = read_corpus(asked.data / name)
        figures += [*speed(judged), *quality(judged)]
        if asked.embedder:
            figures += hybrid(judged, asked.embedder)
    if not asked.no_job:
        figures += whole_job(asked.data)
    return show("research", figures, notes, as_json=asked.json)


def speed(judged: JudgedCorpus) -> Iterator[Figure]:
    """Time to index and to search, ours and bm25s bare, on the same chunks."""
    corpus = Corpus.build(judged.sources)
    texts = [searched_text(chunk) for chunk in corpus.chunks]
    questions = list(judged.questions.values())
    index, bare = Bm25Index.build(corpus), bare_index(texts)
    count = f"{judged.name}, {len(corpus.chunks):,} chunks"
    yield _ratio(f"{count}: index", lambda: Bm25Index.build(corpus), lambda: bare_index(texts), "s", 1.0)
    yield _ratio(
        f"{count}: search",
        lambda: index.search_many(questions, _HITS),
        lambda: bare.retrieve(bare_tokens(questions), k=_HITS, show_progress=False),
        "ms a query",
        1_000.0 / len(questions),
    )


def bare_index(texts: list[str]) -> Any:
    """What bm25s alone makes of the texts: its own tokenisation, our stemmer, stop words and parameters."""
    retriever = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    retriever.index(bare_tokens(texts), show_progress=False)
    return retriever


def bare_tokens(texts: list[str]) -> Any:
    stemmer = cast(Any, Stemmer).Stemmer("english")
    return bm25s.tokenize(texts, stopwords=sorted(STOP_WORDS), stemmer=stemmer, show_progress=False)


def quality(judged: JudgedCorpus) -> Iterator[Figure]:
    """nDCG@10 of BM25 against its known baseline."""
    index = Bm25Index.build(Corpus.build(judged.sources))
    found = index.search_many(list(judged.questions.values()), _RANKED_CHUNKS)
    scores = [ndcg(documents(hits), judged.gains[key]) for key, hits in zip(judged.questions, found, strict=True)]
    mean, baseline = statistics.fmean(scores), BM25_BASELINES[judged.name]
    yield Figure(f"{judged.name}: nDCG@10, BM25", f"{mean:.4f}", f"at least {baseline:.3f}", mean >= baseline)


def hybrid(judged: JudgedCorpus, model: str) -> Iterator[Figure]:
    """nDCG@10 of BM25's best few hundred re-scored. Known hybrids embed the whole corpus, so they are no limit here."""
    index = Bm25Index.build(Corpus.build(judged.sources))
    embedder = SentenceTransformersEmbedder(model)

    async def scores() -> list[float]:
        fused = [(key, await fuse(index, embedder, text, _RANKED_CHUNKS)) for key, text in judged.questions.items()]
        await embedder.aclose()
        return [ndcg(documents(hits), judged.gains[key]) for key, hits in fused]

    mean = statistics.fmean(asyncio.run(scores()))
    against = f"full-corpus hybrid reaches {HYBRID_BASELINES[judged.name]:.3f}"
    yield Figure(f"{judged.name}: nDCG@10, re-scored by {embedder.name}", f"{mean:.4f}", against)


def _ratio(what: str, ours: Callable[[], object], bare: Callable[[], object], unit: str, scale: float) -> Figure:
    timings: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for run, seconds in zip((ours, bare), timings, strict=True):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
    mine, theirs = (statistics.median(seconds) for seconds in timings)
    value = f"{mine * scale:.3f} / {theirs * scale:.3f} {unit} = {mine / theirs:.2f}"
    return Figure(what, value, f"bm25s bare, at most {RATIO_LIMIT}", mine / theirs <= RATIO_LIMIT)


def whole_job(data: Path) -> Iterator[Figure]:
    """One question over a thousand documents on code rungs alone, from the command line to report.json."""
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        question, kind = _write_documents(room / "documents", data / "scifact")
        runs = [_measured_job(room, question) for _ in range(3)]
        report = json.loads((room / "report.json").read_text("utf-8"))
    seconds = statistics.median(run["seconds"] for run in runs)
    peak = max(run["peak_mb"] for run in runs)
    done = all(run["exit"] == 0 for run in runs) and report["sources_read"] == JOB_DOCUMENTS
    what = f"job over {JOB_DOCUMENTS:,} documents ({kind})"
    yield Figure(f"{what}: done", str(done), f"all {JOB_DOCUMENTS:,} read", done)
    yield Figure(f"{what}: wall clock", f"{seconds:.2f} s", f"under {JOB_SECONDS:g} s", seconds < JOB_SECONDS)
    yield Figure(f"{what}: peak memory", f"{peak:.0f} MB", f"under {JOB_MEGABYTES:g} MB", peak < JOB_MEGABYTES)


def _measured_job(room: Path, question: str) -> dict[str, float]:
    command = shutil.which("agentflow", path=str(Path(sys.executable).parent)) or "agentflow"
    run = [sys.executable, "-m", "benchmarks.measured", str(room / "report.json")]
    job = [command, "research", "--json", question, str(room / "documents")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_"))}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "AGENTFLOW_STORES__RUNS": str(room / "runs")}
    done = subprocess.run([*run, *job], cwd=room, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _write_documents(folder: Path, scifact: Path) -> tuple[str, str]:
    """A thousand text and Markdown files; a question about them, and what they are."""
    folder.mkdir()
    if scifact.is_dir():
        sources = read_corpus(scifact).sources[:JOB_DOCUMENTS]
        question, kind = "Does vitamin D deficiency raise the risk of disease?", "scifact"
        papers = [(source.title, source.text) for source in sources]
    else:
        question, kind = "Which word goes with word7?", "seeded synthetic"
        papers = list(_made_papers())
    for number, (title, text) in enumerate(papers):
        name, head = (f"{number}.md", f"# {title}\n\n") if number % 2 else (f"{number}.txt", f"{title}\n\n")
        (folder / name).write_text(f"{head}{text}\n", encoding="utf-8")
    return question, kind


def _made_papers() -> Iterator[tuple[str, str]]:
    chance = random.Random(7)
    words = [f"word{n}" for n in range(5_000)]
    for number in range(JOB_DOCUMENTS):
        lines = (" ".join(chance.choices(words, k=18)).capitalize() + "." for _ in range(12))
        yield f"Paper {number}", " ".join(lines)


if __name__ == "__main__":
    sys.exit(main())
