from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

import pytest

from agentflow.errors import SourceError
from agentflow.research.sources import ReadLimits, kind_of, read_sources
from agentflow.research.sources.parsing import Parsers
from tests.research.sources.documents import HTML, PAPER, read_one

# An HTML parser compares each attribute of an element with all before it.
SLOW_HTML = b"<html><body " + b" ".join(b"a%d=x" % number for number in range(200_000)) + b">words</body></html>"
IMPATIENT = ReadLimits(parse_timeout_s=0.5)


def pdf_of_one_page_many_times(times: int) -> bytes:
    content = zlib.compress(b"BT /F1 12 Tf 72 720 Td (A line of text) Tj ET\n" * 20_000, 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[" + b"3 0 R " * times + b"]/Count %d>>" % times,
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = b"%PDF-1.4\n", b""
    for number, body in enumerate(objects, 1):
        places += b"%010d 00000 n \n" % len(out)
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"xref\n0 6\n0000000000 65535 f \n" + places
    return out + table + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)


async def test_a_document_that_would_keep_its_parser_busy_for_long_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "slow.html").write_bytes(SLOW_HTML)
    (tmp_path / "slow.pdf").write_bytes(pdf_of_one_page_many_times(4_000))
    (tmp_path / "z.txt").write_text("Something to read.")
    reading = await read_sources([str(tmp_path)], limits=IMPATIENT)
    assert [source.text for source in reading.sources] == ["Something to read."]
    told = "took longer than 0.5 s to parse; split it, or convert it to text"
    assert [skipped.reason for skipped in reading.skipped] == [told, told]
    with pytest.raises(SourceError) as raised:
        await read_one(tmp_path / "slow.html", IMPATIENT)
    assert str(raised.value) == f"{tmp_path / 'slow.html'} {told}"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("moments", [0, 1, 3, 300])
async def test_a_cancelled_parsing_ends_its_process_at_whatever_moment(moments: int) -> None:
    async with Parsers(ReadLimits()) as parsers:
        await parsers.extract(HTML.encode(), "text/html", "a.html")
        process = Path(f"/proc/{parsers._idle[0].pid}")
        parsing = asyncio.create_task(parsers.extract(SLOW_HTML, "text/html", "slow.html"))
        for _ in range(moments):
            await asyncio.sleep(0)
        assert process.exists()
        parsing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await parsing
        assert process.exists() == bool(parsers._idle)
    assert not process.exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="memory is bounded on Linux")
async def test_a_document_that_needs_too_much_memory_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "wide.html").write_bytes(b"<html><body>" + b"<p>some words</p>" * 600_000)
    with pytest.raises(SourceError, match=r"wide\.html (needs more than 300 MB of memory|is broken HTML)"):
        await read_one(tmp_path / "wide.html", ReadLimits(max_parser_bytes=300_000_000))


async def test_parsers_are_started_when_needed_and_used_again() -> None:
    async with Parsers(ReadLimits()) as parsers:
        assert (await parsers.extract(b"plain", "text/plain", "a.txt")).text == "plain"
        assert not parsers._idle
        for _ in range(3):
            async with parsers.slot():
                assert "Words on paper." in (await parsers.extract(PAPER, "application/pdf", "a.pdf")).text
        assert len(parsers._idle) == 1
        parsers._idle[0].kill()
        await parsers._idle[0].wait()
        with pytest.raises(SourceError, match="broke down"):
            await parsers.extract(PAPER, "application/pdf", "a.pdf")
        assert (await parsers.extract(HTML.encode(), "text/html", "a.html")).title == "On Tides"


async def test_a_parser_sees_neither_keys_nor_the_working_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "json.py").write_text("raise SystemExit('taken for the standard module')")
    monkeypatch.setenv("SOME_API_KEY", "secret")
    async with Parsers(ReadLimits()) as parsers:
        await parsers.extract(HTML.encode(), "text/html", "a.html")
        environment = Path(f"/proc/{parsers._idle[0].pid}/environ")
        if environment.exists():
            assert b"SOME_API_KEY" not in environment.read_bytes()


def test_what_an_origin_names_is_told_without_failing(tmp_path: Path) -> None:
    assert kind_of("https://example.org/a") == "page"
    assert kind_of(str(tmp_path)) == "folder"
    assert {kind_of(name) for name in (str(tmp_path / "none"), "a\x00b", "~nobody-here/x", "x" * 9_000)} == {"file"}
