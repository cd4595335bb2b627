from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agentflow.errors import SourceError
from agentflow.research.sources import ReadLimits, Source, estimated_bytes, read_sources
from agentflow.research.sources.store import load_sources, store_sources
from tests.research.sources.documents import encrypted, pdf, read_one


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("zero.txt", b"", "is empty"),
        ("blank.md", b" \n\t\n", "is empty"),
        ("picture.png", b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
        ("program", b"\x7fELF\x02\x01\x01\x00", "binary"),
        ("broken.pdf", b"%PDF-1.4 nothing more", "broken PDF"),
        ("cut.pdf", pdf("words")[:300], "broken PDF"),
        ("locked.pdf", encrypted("secret"), "encrypted PDF; remove its password"),
        ("scan.pdf", pdf(""), "without text"),
        ("broken.docx", b"PK\x03\x04 not a zip", "broken .docx"),
        ("empty.html", b"<html><head></head><body></body></html>", "no text"),
    ],
)
async def test_a_file_that_cannot_be_read_is_told_when_named_and_skipped_in_a_folder(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.txt").write_text("Something to read.")
    with pytest.raises(SourceError, match=words) as raised:
        await read_sources([str(tmp_path / name)])
    assert str(raised.value).startswith(str(tmp_path / name))
    reading = await read_sources([str(tmp_path)])
    assert len(reading.sources) == 1
    assert words in reading.skipped[0].reason


@pytest.mark.parametrize("origin", ["missing.md", "nowhere/at/all"])
async def test_a_missing_path_is_told(here: Path, origin: str) -> None:
    with pytest.raises(SourceError, match=f"{origin} does not exist"):
        await read_sources([origin])
    (here / "dangling").symlink_to(here / "gone")
    with pytest.raises(SourceError, match="leads nowhere"):
        await read_sources(["dangling"])


async def test_an_empty_folder_and_one_with_nothing_readable_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no files in it"):
        await read_sources([str(tmp_path)])
    (tmp_path / "x.png").write_bytes(b"\x89PNG\x00")
    with pytest.raises(SourceError, match=r"Nothing to read .*binary"):
        await read_sources([str(tmp_path)])
    with pytest.raises(SourceError, match="No sources given"):
        await read_sources([])


@pytest.mark.parametrize("origin", ["x" * 5_000, "a\0b", "~no-such-user-here/x", "line\nbreak\x1b[31m"])
async def test_a_path_that_cannot_be_one_is_told_in_one_line(origin: str) -> None:
    with pytest.raises(SourceError, match="Check the path") as raised:
        await read_sources([origin])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300
    assert estimated_bytes([origin]) == 0


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"two\nlines.txt", b"\x1b[31mred.txt"])
async def test_a_file_with_an_odd_name_is_read_under_a_name_that_can_be_printed(tmp_path: Path, name: bytes) -> None:
    try:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(b"Something to read.")
    except OSError:
        pytest.skip("this file system does not take such a name")
    (source,) = (await read_sources([str(tmp_path)])).sources
    assert (source.origin + source.title).encode("utf-8").decode().isprintable()
    store_sources(tmp_path / "run", [source])
    assert load_sources(tmp_path / "run") == (source,)


async def test_links_that_go_round_end_and_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside / "deep", inside / "twin", inside / ".kept", outside):
        folder.mkdir(parents=True)
    (inside / "a.txt").write_text("inside")
    (inside / "twin" / "b.txt").write_text("twin")
    (inside / ".kept" / "c.txt").write_text("linked from inside")
    (outside / "secret.txt").write_text("outside")
    (inside / "deep" / "up").symlink_to(inside)
    (inside / "deep" / "twin").symlink_to(inside / "twin")
    (inside / "twin" / "deep").symlink_to(inside / "deep")
    (inside / "self").symlink_to(inside / "self")
    (inside / "gone").symlink_to(inside / "not-there")
    (inside / "linked.txt").symlink_to(inside / ".kept" / "c.txt")
    (inside / "out").symlink_to(outside)
    (inside / "file-out.txt").symlink_to(outside / "secret.txt")
    (tmp_path / "door").symlink_to(inside)
    for folder in (inside, tmp_path / "door"):
        reading = await read_sources([str(folder)])
        assert [source.text for source in reading.sources] == ["inside", "twin", "linked from inside"]
        assert {(Path(s.origin).name, s.reason) for s in reading.skipped} == {
            ("file-out.txt", "is a link that leads out of the folder"),
            ("out", "is a link that leads out of the folder"),
            ("gone", "is a link that leads nowhere"),
            ("self", "is a link that leads nowhere"),
        }


async def test_hidden_files_and_caches_are_passed_over_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".hidden.txt", "sub/c.txt", ".git/d.txt", "node_modules/e.txt", "x.egg-info/f.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    reading = await read_sources([str(tmp_path)])
    assert [source.text for source in reading.sources] == ["a.txt", "b.txt", "sub/c.txt"]


async def test_the_same_text_is_kept_once(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("twice")
    reading = await read_sources([str(tmp_path)])
    assert len(reading.sources) == 1
    assert reading.skipped[0].reason.startswith("same text as")


async def test_a_hundred_megabytes_are_refused_with_the_flag_and_read_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(SourceError, match=r"is 100 MB; the limit is 50 MB\. Raise it with --max-file-mb 101"):
        await read_sources([str(path)])
    path.write_bytes(b"A line about budgets, tokens and joules, again and again.\n" * 1_750_000)
    source = await read_one(path, ReadLimits(max_file_bytes=110_000_000, max_extracted_chars=110_000_000))
    assert len(source.text) > 100_000_000


async def test_twenty_thousand_small_files_are_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20_000):
        with open(folder / f"{number:05}.txt", "wb", buffering=0) as file:
            file.write(b"document %d" % number)
    reading = await read_sources([str(folder)])
    assert len(reading.sources) == 20_000
    assert [source.text for source in reading.sources[::9_999]] == ["document 0", "document 9999", "document 19998"]
    with pytest.raises(SourceError, match=r"more than 19,999 files.*max_files"):
        await read_sources([str(folder)], limits=ReadLimits(max_files=19_999))


async def test_reading_a_folder_ends_within_a_batch_when_it_is_cancelled(tmp_path: Path) -> None:
    for number in range(1_000):
        (tmp_path / f"{number:04}.txt").write_text(f"document {number}")
    read: list[Source] = []

    def cancel_at_once(source: Source) -> None:
        read.append(source)
        current = asyncio.current_task()
        assert current is not None
        current.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(read_sources([str(tmp_path)], on_read=cancel_at_once))
    assert 0 < len(read) < 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_one_may_not_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "locked.txt"
    path.write_text("secret")
    path.chmod(0)
    with pytest.raises(SourceError, match="cannot be read"):
        await read_sources([str(path)])


def test_the_size_of_what_will_be_read_is_estimated_without_failing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("12345")
    assert estimated_bytes([str(tmp_path), str(tmp_path / "none"), "http://example.org/"]) == 1_000_005
