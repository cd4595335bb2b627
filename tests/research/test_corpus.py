from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.research.corpus import Chunk, Corpus
from tests.research.made import made_corpus, made_source

MARKDOWN = ["# Title\n", "## Part\n\n", "- item\n", "```\n", "~~~\n", "| a | b |\n", "Title\n=====\n", "---\n"]
WORDS = ["word ", "A sentence. ", "x" * 70, "é", "日本", "a,b,c\n"]
SPACES = ["\n", "\n\n", "  ", "\t", "\u2028", "\x1c"]
PIECES = st.sampled_from([*MARKDOWN, *WORDS, *SPACES])
TYPES = ("text/markdown", "text/plain", "text/x-rst", "text/csv", "application/json")


def chunks_of(text: str, size: int, media_type: str = "text/markdown") -> tuple[Chunk, ...]:
    return Corpus.build([made_source(text, media_type=media_type)], chunk_chars=size).chunks


@given(st.lists(PIECES | st.text(max_size=30), max_size=60).map("".join), st.integers(1, 200), st.sampled_from(TYPES))
def test_every_character_that_is_not_blank_lies_in_exactly_one_chunk(text: str, size: int, media_type: str) -> None:
    position = 0
    for chunk in chunks_of(text, size, media_type):
        assert position <= chunk.start < chunk.end
        assert chunk.end - chunk.start <= size
        assert not text[position : chunk.start].strip()
        assert chunk.text == text[chunk.start : chunk.end] == chunk.text.strip()
        position = chunk.end
    assert not text[position:].strip()


def test_cuts_fall_at_blank_lines() -> None:
    paragraphs = [f"Paragraph {n} has some words in it, and then a few more." for n in range(30)]
    found = chunks_of("\n\n".join(paragraphs), 200)
    assert all(chunk.text.startswith("Paragraph") and chunk.text.endswith("more.") for chunk in found)


def test_cuts_fall_between_sentences_where_there_are_no_lines() -> None:
    found = chunks_of("Budgets, e.g. of Dr. Smith, hold 3.5 J at a time. They always do. " * 40, 300)
    assert all(chunk.text.endswith((" time.", " do.")) for chunk in found)


def test_cuts_fall_before_headings_and_items() -> None:
    sections = "".join(f"# Part {n}\n\n{'some words ' * 12}\n" for n in range(9))
    assert all(chunk.text.startswith("# Part") for chunk in chunks_of(sections, 400))
    items = "".join(f"- item {n} is about something\n  that goes on\n" for n in range(40))
    assert all(chunk.text.startswith("- item") for chunk in chunks_of(items, 200))


@pytest.mark.parametrize("block", ["```python\n{}```\n", "~~~\n{}~~~\n", "| head |\n|---|\n{}"])
def test_a_block_that_fits_stays_whole(block: str) -> None:
    lines = "".join(f"| row {n}\n" for n in range(10)) if "|" in block else "# note\n\nx = 1\n" * 8
    text = f"{'Some words go first. ' * 8}\n\n{block.format(lines)}\n{'And some after. ' * 20}"
    whole = block.format(lines).strip()
    assert sum(whole in chunk.text for chunk in chunks_of(text, 250)) == 1


def test_a_block_that_does_not_fit_is_cut_at_lines() -> None:
    text = "```\n" + "value = compute(1)\n" * 200 + "```\n"
    found = chunks_of(text, 300)
    assert len(found) > 5
    assert all(line in ("value = compute(1)", "```") for chunk in found for line in chunk.text.split("\n"))


def test_rows_are_not_divided() -> None:
    rows = "".join(f"{n},Dr. Smith,12.5\n" for n in range(200))
    found = chunks_of(rows, 300, "text/csv")
    assert all(len(line.split(",")) == 3 for chunk in found for line in chunk.text.split("\n"))


def test_long_lines_are_cut_at_spaces_and_endless_words_anywhere() -> None:
    assert all(set(chunk.text.split()) == {"word"} for chunk in chunks_of("word " * 500, 101))
    assert [len(chunk.text) for chunk in chunks_of("x" * 250, 100)] == [100, 100, 50]


def test_a_chunk_knows_the_headings_above_it() -> None:
    text = "Before.\n\n# One\n\n## Two ##\n\ntext\n\n```\n# no heading\n```\n"
    text += "\n## Three\n\nmore\n\n# Four\n\nthis is the end"
    found = chunks_of(text, 20)
    headings = {word: chunk.heading for chunk in found for word in chunk.text.split()}
    assert headings["Before."] == ""
    assert headings["text"] == "One > Two"
    assert headings["more"] == "One > Three"
    assert headings["end"] == "Four"


def test_restructured_text_headings_have_the_levels_of_their_first_use() -> None:
    text = "====\nBook\n====\n\nChapter\n-------\n\nwords here\n\nSection\n~~~~~~~\n\ndeeper\n\nOther\n-----\n\nlast"
    headings = {word: chunk.heading for chunk in chunks_of(text, 20, "text/x-rst") for word in chunk.text.split()}
    assert headings["here"] == "Book > Chapter"
    assert headings["deeper"] == "Book > Chapter > Section"
    assert headings["last"] == "Book > Other"


def test_underlines_that_are_none_make_no_heading() -> None:
    text = "---\ntitle: x\n---\n\n# Real\n\nA paragraph\nof two lines\n---\n\n- item\n---\n\nlast words"
    assert chunks_of(text, 30)[-1].heading == "Real"


def test_a_source_is_found_by_its_id() -> None:
    corpus = made_corpus("one", "two")
    assert corpus.source("s2").text == "two"
    with pytest.raises(KeyError):
        corpus.source("s3")


def test_blank_and_empty_texts_have_no_chunks() -> None:
    assert made_corpus("", " \n\t\n").chunks == ()


@pytest.mark.parametrize(
    "line",
    ["# " * 50, "```\n", "|a\n", "a\n===\n", "- ", "\n", "a. ", " " * 50, "# #" + " " * 40, "x" * 300 + "\n===\n"],
)
def test_hostile_text_is_cut_in_linear_time(line: str) -> None:
    """Four times the text takes far less than sixteen times as long."""
    timings: list[float] = []
    for size in (250_000, 1_000_000):
        text = line * (size // len(line))
        began = time.process_time()
        chunks_of(text, 2_000)
        timings.append(time.process_time() - began)
    assert timings[1] < 8 * timings[0] + 0.2
