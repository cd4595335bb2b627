"""How much sooner a job starts over a collection whose index is kept: ``python -m benchmarks.shelf [--json]``

The same files, as Markdown and as pages, read and indexed as a job without a collection does it, and loaded from the
store as one with a collection does; in turns, in one run. Exit code 1 when loading takes more than a tenth of the time
that reading pages takes, or half of that of Markdown, which is quick to read; or when putting the postings of several
sources together takes more than 0.3 of the time that counting them anew takes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import html
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from agentflow.jobs.collections.reader import keep, read_and_index
from agentflow.jobs.store.disk import DiskStore
from agentflow.research.corpus import Corpus
from agentflow.research.indexed import IndexedSource, index_of
from agentflow.research.postings import Postings
from agentflow.research.retrieval import Bm25Index
from agentflow.research.sources import read_sources
from benchmarks.table import Figure, show

DOCS = Path(__file__).parents[1] / "docs"
JOIN_LIMIT = 0.3
LIMITS = {"md": 0.5, "html": 0.1}
_ROUNDS = 5


def main() -> int:
    """Measure both kinds of files and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--repeated", type=int, default=20, help="how often a file repeats a page of the documentation")
    asked = parser.parse_args()
    figures = [figure for kind in LIMITS for figure in asyncio.run(measure(kind, asked.repeated))]
    return show("Collections", figures, as_json=asked.json)


async def measure(kind: str, repeated: int) -> list[Figure]:
    """The figures of one kind of file."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _write(Path(folder) / "files", kind, repeated)
        store = DiskStore(Path(folder) / "store")
        kept = {str(path): await _keep(store, path) for path in paths}
        fresh, loaded = await _in_turns(lambda: _read(paths), lambda: _load(store, kept))
        joined, counted = await _join(store, kept)
        await store.aclose()
        size = sum(path.stat().st_size for path in paths) / 1e6
    what = f"{len(paths)} .{kind} files, {size:.1f} MB"
    return [
        _ratio(f"{what}: index loaded / files read and indexed", loaded, fresh, LIMITS[kind]),
        _ratio(f"{what}: postings put together / counted anew", joined, counted, JOIN_LIMIT),
    ]


def _ratio(what: str, mine: float, other: float, limit: float) -> Figure:
    ratio = mine / other
    return Figure(what, f"{mine:.3f} / {other:.3f} s = {ratio:.2f}", f"at most {limit}", ratio <= limit)


async def _join(store: DiskStore, kept: dict[str, tuple[str, str]]) -> Sequence[float]:
    """What a job over several collections spares: their postings put together, and the same chunks counted anew."""
    parts = [IndexedSource.from_bytes(await store.get(*place)) for place in kept.values()]
    corpus = Corpus([], [chunk for part in parts for chunk in part.chunks])

    async def together() -> Bm25Index:
        return Bm25Index(corpus, Postings.together([part.postings for part in parts]))

    async def anew() -> Bm25Index:
        return Bm25Index.build(corpus)

    return await _in_turns(together, anew)


async def _in_turns(*ways: Callable[[], Awaitable[Bm25Index]]) -> Sequence[float]:
    times: list[list[float]] = [[] for _ in ways]
    found = set[int]()
    for _ in range(_ROUNDS):
        for way, seconds in zip(ways, times, strict=True):
            began = time.perf_counter()
            index = await way()
            seconds.append(time.perf_counter() - began)
            found.add(len(index.corpus.chunks))
    assert len(found) == 1, "both index the same chunks"
    return [statistics.median(seconds) for seconds in times]


async def _read(paths: Sequence[Path]) -> Bm25Index:
    reading = await read_sources([str(path) for path in paths])
    return Bm25Index.build(Corpus.build(reading.sources))


async def _load(store: DiskStore, kept: dict[str, tuple[str, str]]) -> Bm25Index:
    parts = [
        IndexedSource.from_bytes(await store.get(*place)).named(f"s{number}", origin)
        for number, (origin, place) in enumerate(kept.items(), start=1)
    ]
    return index_of(Corpus([], []), parts)


async def _keep(store: DiskStore, path: Path) -> tuple[str, str]:
    id = hashlib.sha256(path.name.encode()).hexdigest()[:24]
    return id, await keep(store, id, await read_and_index(path, 2_000))


def _write(folder: Path, kind: str, repeated: int) -> list[Path]:
    """A file for each page of the documentation, as long as a manual is: the page again and again."""
    folder.mkdir()
    paths: list[Path] = []
    for page in sorted(DOCS.glob("*.md")):
        blocks = [f"{block} ({n})" for n in range(repeated) for block in page.read_text("utf-8").split("\n\n")]
        text = "\n\n".join(blocks)
        if kind == "html":
            paragraphs = "".join(f"<p>{html.escape(block)}</p>" for block in blocks)
            text = f"<html><head><title>{page.stem}</title></head><body><article>{paragraphs}</article></body></html>"
        path = folder / f"{page.stem}.{kind}"
        path.write_text(text, "utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    sys.exit(main())
