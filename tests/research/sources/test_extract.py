from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import SourceError
from agentflow.research.sources import ReadLimits, read_sources
from agentflow.research.sources.decoding import decode
from agentflow.research.sources.extract import DOCX, extract, media_type_of
from agentflow.research.sources.store import sha256_of
from tests.research.sources.documents import HTML, PAPER, encrypted, pdf, read_one


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
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert decode(text.encode()) == expected
    assert decode(b"\xef\xbb\xbf" + text.encode()) == expected
    assert sha256_of(expected) == hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize("text", ["RIFF is a container.", "GIF87a was first.", "OggS opens a page.", "SQLite format 3"])
def test_text_that_begins_like_a_binary_file_is_text(text: str) -> None:
    assert decode(text.encode()) == text


def test_bytes_that_are_neither_utf_8_nor_free_of_control_characters_are_binary() -> None:
    with pytest.raises(SourceError, match="binary"):
        decode(bytes(range(1, 256)) * 20)
    with pytest.raises(SourceError, match="binary"):
        decode(b"\xff\xfe" + bytes(200))


async def test_html_is_read_in_the_encoding_it_declares(tmp_path: Path) -> None:
    page = (
        '<html><head><meta charset="shift_jis"><title>日本</title></head><body><p>これは短い文です。</p></body></html>'
    )
    (tmp_path / "page.html").write_bytes(page.encode("shift_jis"))
    source = await read_one(tmp_path / "page.html")
    assert (source.title, source.text.strip()) == ("日本", "これは短い文です。")


@pytest.mark.parametrize(
    "html", ["<p>x</p>", "just words", "<?xml version='1.0' encoding='latin-1'?><p>a b</p>", "&#0;z"]
)
async def test_a_piece_of_html_is_read_as_it_stands(tmp_path: Path, html: str) -> None:
    (tmp_path / "piece.html").write_text(html)
    assert (await read_one(tmp_path / "piece.html")).text.strip()


@given(st.binary(max_size=400), st.sampled_from(["text/html", "application/pdf", DOCX, "text/plain", "text/markdown"]))
def test_whatever_a_document_holds_it_is_text_or_a_source_error(data: bytes, media_type: str) -> None:
    head = {"application/pdf": b"%PDF-1.7\n", "text/html": b"<html>"}.get(media_type, b"")
    with contextlib.suppress(SourceError):
        extract(head + data, media_type, "name", ReadLimits()).text.encode("utf-8")


@given(st.lists(st.tuples(st.integers(0, len(PAPER) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_a_damaged_pdf_is_text_or_a_source_error(damage: list[tuple[int, int]]) -> None:
    data = bytearray(PAPER)
    for place, byte in damage:
        data[place] = byte
    with contextlib.suppress(SourceError):
        extract(bytes(data), "application/pdf", "name", ReadLimits()).text.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("a.md", "Setext\n======\n\ntext", "Setext"),
        ("a.md", "intro\n\n## Later *one* ##\n", "Later one"),
        ("a.md", "no heading", "a.md"),
        ("a.rst", "====\nOver\n====\n\ntext", "Over"),
        ("a.html", "<p>words</p><h1>In the page</h1>", "In the page"),
    ],
)
def test_a_title_is_the_first_heading_or_the_name(name: str, text: str, title: str) -> None:
    assert extract(text.encode(), media_type_of(name), name, ReadLimits()).title == title


def test_a_pdf_without_a_title_goes_by_its_first_line() -> None:
    assert extract(pdf("The first line"), "application/pdf", "x.pdf", ReadLimits()).title == "The first line"


async def test_text_that_is_not_utf_8_is_read_by_its_own_encoding(tmp_path: Path) -> None:
    text = "Les crèmes brûlées sont préparées à l'avance, puis caramélisées.\n" * 20
    (tmp_path / "latin.txt").write_bytes(text.encode("cp1252"))
    (tmp_path / "wide.txt").write_bytes(text.encode("utf-16"))
    assert (await read_one(tmp_path / "latin.txt")).text == text
    assert (await read_one(tmp_path / "wide.txt")).text == text


async def test_a_pdf_locked_only_against_changes_is_read(tmp_path: Path) -> None:
    (tmp_path / "open.pdf").write_bytes(encrypted(""))
    assert "secret words" in (await read_one(tmp_path / "open.pdf")).text


def test_a_pdf_with_too_many_pages_or_too_much_text_is_refused() -> None:
    with pytest.raises(SourceError, match="has 2 pages; the limit is 1"):
        extract(PAPER, "application/pdf", "x.pdf", ReadLimits(max_pdf_pages=1))
    with pytest.raises(SourceError, match="more than 20 characters"):
        extract(PAPER, "application/pdf", "x.pdf", ReadLimits(max_extracted_chars=20))


def test_a_table_that_claims_a_billion_columns_is_read_as_it_stands() -> None:
    document = docx.Document()
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    table.cell(0, 1).add_table(1, 1).cell(0, 0).text = "inner"
    table.cell(0, 0)._tc.get_or_add_tcPr().get_or_add_gridSpan().val = 1_000_000_000
    out = io.BytesIO()
    document.save(out)
    text = extract(out.getvalue(), DOCX, "x.docx", ReadLimits()).text
    assert " ".join(text.split()) == "left | right inner"


async def test_a_zip_that_unpacks_to_very_much_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * 50_000_000)
    with pytest.raises(SourceError, match="unpacks to"):
        await read_one(tmp_path / "bomb.docx", ReadLimits(max_extracted_chars=1_000_000))
