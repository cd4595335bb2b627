from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from reportlab.pdfgen.canvas import Canvas

from agentflow.errors import SourceError
from agentflow.research.sources import ReadLimits, Source, estimated_bytes, read_sources
from agentflow.research.sources.decoding import decode
from agentflow.research.sources.store import load_text, store_sources

HTML = """<html><head><title>On Tides</title></head><body><nav>home</nav><article><h1>On Tides</h1>
<p>The tide in the Bay of Fundy rises by sixteen metres.</p>
<p>The moon pulls the water of the ocean, the water runs into the bay, and the shape of the bay makes each swing
grow with the next one, so that the boats lie on the mud for half of the day and float for the other half.</p>
</article></body></html>"""


def pdf(*pages: str, title: str = "") -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out)
    if title:
        canvas.setTitle(title)
    for page in pages:
        canvas.drawString(72, 720, page)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def encrypted(password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("secret words"))))
    writer.encrypt(password, owner_password="owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


async def read_one(path: Path, limits: ReadLimits | None = None) -> Source:
    (source,) = (await read_sources([str(path)], limits=limits)).sources
    return source


async def test_every_format_gives_its_text_its_title_and_its_type(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("On Word", 1)
    document.add_paragraph("A paragraph about budgets.")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    document.add_paragraph("After the table.")
    document.save(str(tmp_path / "word.docx"))
    files = {
        "a.md": (b"intro\n\n# On *Marks*\n\nText.", "On Marks", "text/markdown"),
        "b.txt": (b"Just text.", "b.txt", "text/plain"),
        "c.rst": (b"On Rest\n=======\n\nText.", "On Rest", "text/x-rst"),
        "d.html": (HTML.encode(), "On Tides", "text/html"),
        "e.pdf": (pdf("First page.", "Second page.", title="On Paper"), "On Paper", "application/pdf"),
        "f.json": (b'{"a": 1}', "f.json", "application/json"),
        "g.csv": (b"a,b\n1,2\n", "g.csv", "text/csv"),
        "h.py": (b"print('hello')\n", "h.py", "text/x-python"),
        "i.cfg": (b"[x]\ny = 1\n", "i.cfg", "text/plain"),
    }
    for name, (data, _, _) in files.items():
        (tmp_path / name).write_bytes(data)
    reading = await read_sources([str(tmp_path)])
    found = {Path(source.origin).name: source for source in reading.sources}
    for name, (_, title, kind) in files.items():
        assert (found[name].title, found[name].media_type) == (title, kind)
    word = found["word.docx"]
    assert word.title == "On Word"
    assert [word.text.index(part) for part in ("On Word", "budgets", "left | right", "After")] == sorted(
        word.text.index(part) for part in ("On Word", "budgets", "left | right", "After")
    )
    assert "First page." in found["e.pdf"].text
    assert "Second page." in found["e.pdf"].text
    assert "sixteen metres" in found["d.html"].text
    assert "home" not in found["d.html"].text
    assert [source.id for source in reading.sources] == [f"s{n}" for n in range(1, len(reading.sources) + 1)]


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00\ufeff")))
def test_text_written_as_utf_8_is_read_as_it_was_but_for_line_ends(text: str) -> None:
    data = text.encode()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or text.startswith(("PK\x03", "GIF8", "RIFF", "OggS", "SQLite")):
        return
    assert decode(data) == text.replace("\r\n", "\n").replace("\r", "\n")
    assert decode(b"\xef\xbb\xbf" + data) == decode(data)


async def test_text_that_is_not_utf_8_is_read_by_its_own_encoding(tmp_path: Path) -> None:
    text = "Les crèmes brûlées sont préparées à l'avance, puis caramélisées.\n" * 20
    (tmp_path / "latin.txt").write_bytes(text.encode("cp1252"))
    (tmp_path / "wide.txt").write_bytes(text.encode("utf-16"))
    assert (await read_one(tmp_path / "latin.txt")).text == text
    assert (await read_one(tmp_path / "wide.txt")).text == text


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


async def test_a_pdf_locked_only_against_changes_is_read(tmp_path: Path) -> None:
    (tmp_path / "open.pdf").write_bytes(encrypted(""))
    assert "secret words" in (await read_one(tmp_path / "open.pdf")).text


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


async def test_links_that_go_round_end_and_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (inside / "a.txt").write_text("inside")
    (outside / "secret.txt").write_text("outside")
    (inside / "deep" / "up").symlink_to(inside)
    (inside / "self").symlink_to(inside / "self")
    (inside / "out").symlink_to(outside)
    (inside / "file-out.txt").symlink_to(outside / "secret.txt")
    reading = await read_sources([str(inside)])
    assert [source.text for source in reading.sources] == ["inside"]


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


async def test_twenty_thousand_small_files_are_read_and_stored(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20_000):
        with open(folder / f"{number:05}.txt", "wb", buffering=0) as file:
            file.write(b"document %d" % number)
    reading = await read_sources([str(folder)])
    assert len(reading.sources) == 20_000
    with pytest.raises(SourceError, match=r"more than 19,999 files"):
        await read_sources([str(folder)], limits=ReadLimits(max_files=19_999))


async def test_a_zip_that_unpacks_to_very_much_is_not_opened(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * 50_000_000)
    with pytest.raises(SourceError, match="unpacks to"):
        await read_one(tmp_path / "bomb.docx", ReadLimits(max_extracted_chars=1_000_000))


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
