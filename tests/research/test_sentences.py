from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.research.sentences import boundaries, sentences


def split(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text)]


def kinds(text: str) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith measured it.", "Mr. Jones did not."],
        ["It costs $1.5 million, i.e. a lot.", "It draws 3.5 W."],
        ["Some chips, e.g. the H100, are fast.", "Others are not."],
        ["See https://example.org/a.html?x=1.2 for more.", "Or ask."],
        ["The file `agentflow.toml` is read first.", "Then comes the environment."],
        ["Use `agentflow.toml`.", "It is found."],
        ["**Budgets hold.**", "A call is held first."],
        ["Is it so?", "Yes!", "It is."],
        ['"It holds," she said.', "He left."],
        ["In the U.S. it is so.", "Elsewhere it is not."],
        ["Smith et al. (2024) say so.", "We do too."],
        ["これは文です。", "次の文です。"],
    ],
)
def test_prose_is_split_where_sentences_end(expected: list[str]) -> None:
    assert split(" ".join(expected)) == expected


def test_a_hard_wrapped_paragraph_is_one_run_of_prose() -> None:
    text = "A call is held\nbefore it leaves. It is\nsettled after.\n\nAnother\nparagraph"
    assert split(text) == ["A call is held\nbefore it leaves.", "It is\nsettled after.", "Another\nparagraph"]


def test_the_marker_of_an_item_is_not_part_of_its_sentence() -> None:
    text = "Three things:\n\n- one. It has\n  two sentences.\n* two\n3. three\n   - nested item"
    assert kinds(text) == [
        ("prose", "Three things:"),
        ("list", "one."),
        ("list", "It has\n  two sentences."),
        ("list", "two"),
        ("list", "three"),
        ("list", "nested item"),
    ]


def test_blocks_have_their_kinds() -> None:
    text = "# Head\n\nProse.\n```py\nx = 1. + 2\n\ny = 2\n```\n"
    text += "| a | b |\n|---|---|\n| 1 | 2 |\n> quoted\n\nTitle\n=====\nEnd."
    assert kinds(text) == [
        ("heading", "Head"),
        ("prose", "Prose."),
        ("code", "x = 1. + 2"),
        ("code", "y = 2"),
        ("table", "| a | b |"),
        ("table", "| 1 | 2 |"),
        ("prose", "quoted"),
        ("heading", "Title"),
        ("prose", "End."),
    ]


def test_tildes_underline_a_title_or_open_a_fence() -> None:
    text = "Title\n~~~~~\n\nWords here:\n\n~~~\ncode\n~~~\n"
    assert kinds(text) == [("heading", "Title"), ("prose", "Words here:"), ("code", "code")]


def test_a_region_inside_a_fence_is_code() -> None:
    text = "Words.\n```\nfirst\nsecond\n```\nAfter."
    start = text.index("second")
    assert [(span.kind, text[span.start : span.end]) for span in sentences(text, start)] == [
        ("code", "second"),
        ("prose", "After."),
    ]


def test_a_region_has_offsets_into_the_whole_text() -> None:
    text = "One here. Two here. Three here."
    spans = sentences(text, 10, 19)
    assert [(span.start, span.end) for span in spans] == [(10, 19)]


TEXTS = st.lists(
    st.sampled_from(
        ["A b. ", "# h\n", "\n", "- i\n", "```\n", "|t|\n", "e.g. ", "é日。", "**x.** ", "===\n", "🙂 ok! ", "\u2028"]
    )
    | st.text(max_size=20),
    max_size=30,
).map("".join)


@given(TEXTS, st.integers(0, 80), st.integers(0, 300))
def test_spans_are_in_order_inside_the_region_and_have_no_white_space_around_them(
    text: str, start: int, end: int
) -> None:
    start, end = min(start, len(text)), min(end, len(text))
    position = start
    for span in sentences(text, start, end):
        assert position <= span.start < span.end <= end
        assert text[span.start : span.end] == text[span.start : span.end].strip()
        position = span.end


@given(TEXTS)
def test_boundaries_cover_a_paragraph_without_gaps(text: str) -> None:
    paragraph = text.replace("\n", " ")
    assert "".join(paragraph[start:end] for start, end in boundaries(paragraph)) == paragraph
