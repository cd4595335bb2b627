from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import jsonschema
import lxml.html
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agentflow.research.rendering import schema_text, to_html, to_markdown
from agentflow.research.rendering.terminal import render
from agentflow.research.report import NOT_ANSWERED, Claim, Report
from tests.conftest import PROJECT
from tests.research.rendering.samples import ENDED, TIDES, cite, digest, report


def spoken(made: Report, texts: dict[str, str], **options: object) -> str:
    out = io.StringIO()
    render(made, texts, Console(file=out, width=80, highlight=False, **options), Path("runs/x"))  # type: ignore[arg-type]
    return out.getvalue()


def test_markdown_has_every_claim_citation_and_figure() -> None:
    text = to_markdown(*report())
    assert text.startswith("# How high is the tide, and who said what?\n")
    assert "rises by 16 metres. [\\[1\\]](#cite-1)" in text
    assert "**[1]** docs/s1.md:3, characters 9–57" in text
    assert "## Unsupported" in text
    assert "the number 99 is not in the cited text" in text
    assert "1.2 kJ (300 J to 5 kJ, modelled)" in text
    assert "3.1e-3" not in text
    assert "$0.0031 of $0.25" in text
    assert "docs/x.png (is a binary file, not text)" in text


def test_hostile_text_stays_text_in_markdown() -> None:
    text = to_markdown(*report())
    assert not re.search(r"(?<!\\)<script", text)
    assert not re.search(r"(?<!\\)\]\(javascript:", text)
    assert "\n# not a heading" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("render_as", [to_markdown, to_html, spoken])
def test_what_is_not_answered_and_what_ended_the_job_are_told(render_as: object) -> None:
    made, texts = report(answered=False, claims=(), sources=(), ending=ENDED)
    text = render_as(made, texts)  # type: ignore[operator]
    assert NOT_ANSWERED in text
    assert re.search(r"Ended early \(budget\)", text)
    assert "Left undone: synthesis" in " ".join(text.split())


def test_the_terminal_prints_plain_lines_where_there_is_no_terminal() -> None:
    text = spoken(*report())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "[1] docs/s1.md:3" in text
    assert not set("─│┌╭\x1b\u202e") & set(text)
    assert "[red]" not in text
    assert "Kept in runs/x" in text


def test_a_terminal_gets_colour_and_no_escape_sequence_of_a_source() -> None:
    text = spoken(*report(), force_terminal=True)
    assert "\x1b[" in text
    assert "\x1b[31mred" not in text


def test_the_page_asks_nobody_and_runs_nothing() -> None:
    page = to_html(*report())
    tree = lxml.html.document_fromstring(page)
    assert tree.xpath("//script | //iframe | //img | //object | //*[@style] | //@*[starts-with(name(), 'on')]") == []
    assert all(str(link).startswith(("#", "data:")) for link in tree.xpath("//@href | //@src"))
    assert "default-src 'none'" in tree.xpath("//meta[@http-equiv]/@content")[0]
    assert "<script>" not in page


def test_the_published_schema_is_current_and_a_report_keeps_to_it() -> None:
    assert (PROJECT / "docs" / "report.schema.json").read_text("utf-8") == schema_text()
    jsonschema.validate(json.loads(report()[0].model_dump_json()), json.loads(schema_text()))


def marked(page: str) -> dict[str, str]:
    tree = lxml.html.document_fromstring(page)
    return {mark.get("id"): mark.text_content() for mark in tree.xpath("//mark")}


printable = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=300)


@settings(max_examples=30)
@given(printable, st.lists(st.tuples(st.integers(0, 299), st.integers(1, 80)), min_size=1, max_size=6))
def test_whatever_spans_overlap_each_mark_is_exactly_its_quote(text: str, spans: list[tuple[int, int]]) -> None:
    quotes = [(start % len(text), min(len(text), start % len(text) + length)) for start, length in spans]
    claims = []
    for start, end in quotes:
        citation = cite("s1", text, text[start:end]).model_copy(update={"start": start, "end": end})
        claims.append(Claim(text="A claim.", citations=(citation,), question=0, support=1.0))
    made, _ = report()
    source = made.sources[0].model_copy(update={"sha256": digest(text)})
    made = made.model_copy(update={"claims": tuple(claims), "sources": (source,)})
    found = marked(to_html(made, {"s1": text}))
    expected = {f"cite-{n}": text[a:b] for n, (a, b) in enumerate(dict.fromkeys(quotes), start=1)}
    assert found == expected


def test_a_long_source_is_shown_around_its_span_with_what_was_left_out() -> None:
    page = to_html(*report())
    assert re.search(r"… [\d,]+ characters after", page)
    assert marked(page)["cite-1"] == "The tide in the Bay of Fundy rises by 16 metres."
    assert len(page) < 60_000
    assert TIDES not in page


@pytest.mark.browser
def test_clicking_each_citation_shows_its_span_in_the_source(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        assert not os.environ.get("AGENTFLOW_REQUIRE_BROWSER"), (
            "AGENTFLOW_REQUIRE_BROWSER is set and there is no Chromium"
        )
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    made, texts = report()
    path = tmp_path / "report.html"
    path.write_text(to_html(made, texts), "utf-8")
    problems: list[str] = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": 1300, "height": 800})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith((path.as_uri(), "data:")) else problems.append(r.url))
        page.goto(path.as_uri())
        links = page.locator("a.mark")
        assert links.count() == 4
        plain = page.locator("mark").first.evaluate("e => getComputedStyle(e).backgroundColor")
        quotes = {c.quote for claim in made.claims for c in claim.citations}
        seen: set[str] = set()
        for number in range(links.count()):
            links.nth(number).click()
            target = page.locator("mark:target")
            assert target.count() == 1
            text = target.evaluate("e => e.textContent")
            assert text in quotes
            seen.add(text)
            assert target.evaluate("e => getComputedStyle(e).backgroundColor") != plain
            box = target.bounding_box()
            assert box is not None
            assert 0 <= box["y"] <= 800
            assert box["x"] > 600, "the span is shown in the pane of the sources"
        assert seen == quotes
        page.get_by_role("link", name="back to the text").first.click()
        browser.close()
    assert problems == []
