from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentflow.errors import SourceError
from agentflow.research.sources import read_sources
from agentflow.research.sources.store import _write_whole, load_sources, load_text, store_sources
from tests.research.sources.documents import read_one


async def test_stored_text_is_what_its_hash_is_of_and_a_change_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café\r\nline\n".encode())
    source = await read_one(tmp_path / "a.txt")
    assert source.sha256 == hashlib.sha256(source.text.encode()).hexdigest()
    store_sources(tmp_path / "run", [source])
    stored = tmp_path / "run" / "sources" / "s1.txt"
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == source.sha256
    assert load_text(tmp_path / "run", "s1", source.sha256) == source.text
    stored.write_bytes(stored.read_bytes() + b" ")
    with pytest.raises(SourceError, match="was changed"):
        load_text(tmp_path / "run", "s1", source.sha256)
    stored.unlink()
    with pytest.raises(SourceError, match="missing"):
        load_text(tmp_path / "run", "s1", source.sha256)


async def test_a_run_folder_that_was_tampered_with_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Something to read.")
    store_sources(tmp_path / "run", [await read_one(tmp_path / "a.txt")])
    index = tmp_path / "run" / "sources" / "index.jsonl"
    whole = index.read_text()
    for changed, words in (
        (whole.replace('"id": "s1"', '"id": "../../a"'), "names a source"),
        (whole[:40], "not an index"),
        ("[]\n", "not an index"),
        ("{}\n", "not an index"),
    ):
        index.write_text(changed)
        with pytest.raises(SourceError, match=words):
            load_sources(tmp_path / "run")
    index.unlink()
    with pytest.raises(SourceError, match="missing"):
        load_sources(tmp_path / "run")


async def test_two_thousand_sources_are_stored_and_loaded_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(2_000):
        (folder / f"{number:04}.md").write_text(f"# Document {number}\n\ncafé {number}\n")
    reading = await read_sources([str(folder)])
    store_sources(tmp_path / "run", reading.sources)
    assert load_sources(tmp_path / "run") == reading.sources


def test_a_text_that_breaks_off_while_it_is_stored_leaves_the_one_before(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half of"
        raise KeyboardInterrupt

    path = tmp_path / "s1.txt"
    path.write_bytes(b"whole")
    with pytest.raises(KeyboardInterrupt):
        _write_whole(path, pieces())
    assert path.read_bytes() == b"whole"
