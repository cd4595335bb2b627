"""What a reading may touch: domains on every hop, the network, and days."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import FetchRefused, SourceError
from agentflow.research.sources import Scope, Source, SourceDate, read_sources
from agentflow.research.sources.scope import below, host_of
from agentflow.research.sources.store import load_sources, store_sources
from tests.research.sources.documents import pdf

HERE = "127.0.0.1"


async def fetch(address: str, scope: Scope) -> Source:
    (source,) = (await read_sources([address], scope=scope)).sources
    return source


def dated(folder: Path, name: str, day: str, text: str = "The tide rises by sixteen metres.") -> Path:
    path = folder / name
    path.write_text(f"{text} It is told in {name}.")
    moment = datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp()
    os.utime(path, (moment, moment))
    return path


async def test_domain_rules_hold_on_every_hop_of_a_redirect(pages: str) -> None:
    only_here = Scope(include_domains=(HERE,), allow_private=True)
    assert "sixteen" in (await fetch(f"{pages}/article", only_here)).text
    elsewhere = pages.replace(HERE, "localhost")
    with pytest.raises(FetchRefused, match="is on 'localhost', which is not below include_domains"):
        await fetch(f"{elsewhere}/article", only_here)
    with pytest.raises(FetchRefused, match=r"redirects to .* is on 'localhost', which is not below include_domains"):
        await fetch(f"{pages}/away?to={elsewhere}/article", only_here)
    with pytest.raises(FetchRefused, match=r"redirects to .* is on 'localhost', which is below exclude_domains"):
        await fetch(f"{pages}/away?to={elsewhere}/article", Scope(exclude_domains=("localhost",), allow_private=True))


async def test_without_the_network_no_page_is_fetched(pages: str, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="may not use the network"):
        await fetch(f"{pages}/article", Scope(allow_network=False, allow_private=True))
    dated(tmp_path, "tides.txt", "2020-01-01")
    assert (await read_sources([str(tmp_path)], scope=Scope(allow_network=False))).sources


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("https://WWW.Example.ORG./x", "example.org"),
        ("https://bücher.example/x", "xn--bcher-kva.example"),
        ("https://ｅｘａｍｐｌｅ.org/x", "example.org"),
        ("https://www.example。org/x", "example.org"),
        ("https://example.org/x", "EXAMPLE.org."),
    ],
)
def test_a_domain_is_known_however_it_is_written(address: str, rule: str) -> None:
    with pytest.raises(FetchRefused):
        Scope(exclude_domains=(rule,)).check(address)
    Scope(include_domains=(rule,)).check(address)


@given(st.text(max_size=40))
def test_no_text_of_a_host_breaks_the_rules(text: str) -> None:
    assert not below(host_of(f"https://{text}"), ("no-such-domain.test",))
    assert not below(host_of(f"https://{text.replace('/', '')}example.org.evil.test/"), ("example.org",))


@given(st.dates(), st.dates(), st.dates())
def test_a_source_is_read_exactly_when_its_day_is_in_the_span(day: date, after: date, before: date) -> None:
    left_out = Scope(after=after, before=before).left_out(SourceDate(day, "page"))
    assert (left_out is None) == (after <= day <= before)
    assert left_out is None or left_out[0] == "date"


async def test_files_outside_the_span_are_left_out_with_their_day(tmp_path: Path) -> None:
    for name, day in (("old.txt", "2019-12-31"), ("mid.txt", "2020-01-01"), ("new.txt", "2021-06-02")):
        dated(tmp_path, name, day)
    scope = Scope(after=date(2020, 1, 1), before=date(2020, 12, 31))
    reading = await read_sources([str(tmp_path)], scope=scope)
    (source,) = reading.sources
    assert (source.origin.endswith("mid.txt"), str(source.date)) == (
        True,
        "2020-01-01 (when the file was last changed)",
    )
    assert [(s.cause, s.reason) for s in reading.skipped] == [
        ("date", "dated 2021-06-02 (when the file was last changed), after 2020-12-31"),
        ("date", "dated 2019-12-31 (when the file was last changed), before 2020-01-01"),
    ]
    nothing = await read_sources([str(tmp_path / "old.txt")], scope=scope)
    assert nothing.sources == () and nothing.skipped[0].cause == "date"


async def test_what_a_document_says_goes_before_the_files_own_time(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\ntitle: Tides\ndate: 2015-03-04\n---\n\n# Tides\n\nThey rise.\n")
    (tmp_path / "b.pdf").write_bytes(pdf("Words on paper."))
    (tmp_path / "c.html").write_text(
        '<html><head><script type="application/ld+json">{"@type": "Article", "datePublished": "2016-01-02"}</script>'
        "</head><body><article><p>The tide in the Bay of Fundy rises by sixteen metres.</p></article></body></html>"
    )
    word = docx.Document()
    word.add_paragraph("Words in a file.")
    word.core_properties.created = datetime(2017, 8, 9, tzinfo=UTC)
    word.save(str(tmp_path / "d.docx"))
    found = {Path(s.origin).name: s.date for s in (await read_sources([str(tmp_path)])).sources}
    assert found["a.md"] == SourceDate(date(2015, 3, 4), "document")
    assert found["b.pdf"] is not None and found["b.pdf"].basis == "document"
    assert found["c.html"] == SourceDate(date(2016, 1, 2), "page")
    assert found["d.docx"] == SourceDate(date(2017, 8, 9), "document")


async def test_a_page_says_its_day_or_its_server_does_or_nobody(pages: str) -> None:
    anything = Scope(allow_private=True)
    assert (await fetch(f"{pages}/dated?day=2018-05-06", anything)).date == SourceDate(date(2018, 5, 6), "page")
    modified = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert (await fetch(f"{pages}/dated?modified={modified}", anything)).date == SourceDate(
        date(2015, 10, 21), "server"
    )
    assert (await fetch(f"{pages}/dated?modified=never", anything)).date is None
    after = Scope(after=date(2010, 1, 1), allow_private=True)
    reading = await read_sources([f"{pages}/article", f"{pages}/dated?day=2018-05-06"], scope=after)
    assert [s.cause for s in reading.skipped] == ["undated"] and len(reading.sources) == 1
    kept = Scope(after=date(2010, 1, 1), undated="keep", allow_private=True)
    assert (await fetch(f"{pages}/article", kept)).date is None


@pytest.mark.parametrize(
    "markup",
    [
        '<meta property="article:published_time" content="not a day">',
        '<script type="application/ld+json">{"datePublished": ["2016"], </script>',
        '<time datetime="9999-99-99">then</time>',
        '<meta name="date" content="2999-01-01">',
    ],
)
async def test_a_day_that_cannot_be_costs_a_page_nothing(tmp_path: Path, markup: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(f"<html><head>{markup}</head><body><p>The tide rises by sixteen metres.</p></body></html>")
    (source,) = (await read_sources([str(path)])).sources
    assert "sixteen" in source.text and source.date is not None and source.date.basis == "file"


async def test_a_day_is_kept_with_its_source(tmp_path: Path) -> None:
    reading = await read_sources([str(dated(tmp_path, "a.txt", "2020-01-01"))])
    store_sources(tmp_path / "run", reading.sources)
    assert load_sources(tmp_path / "run") == reading.sources


async def test_nothing_to_read_is_still_an_error_where_no_day_is_to_blame(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(SourceError, match="Nothing to read"):
        await read_sources([str(tmp_path)], scope=Scope(after=date(2020, 1, 1)))
