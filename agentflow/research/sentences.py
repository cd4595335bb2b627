"""Sentences with exact offsets, in text that may be Markdown or reStructuredText. Imports nothing of agentflow.

Blocks are found by rules on single lines; sentencex splits what is prose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import sentencex

Kind = Literal["prose", "heading", "code", "table", "list"]

_FENCE = re.compile(r"[ \t]*(```|~~~)")
_HEADING = re.compile(r"#{1,6}[ \t]+(?=\S)")
_UNDERLINE = re.compile(r"([=\-~^\"'*+#`.:_])\1{2,}$")
_TABLE = re.compile(r"\||\+[-=]{2}")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+(?=\S)")
_QUOTED = re.compile(r"(?:>[ \t]*)+")
_DIRECTIVE = re.compile(r"\.\. |!!! |\?\?\? |::: |<!--|\[[^\]]+\]: ")
_CLOSING = re.compile(r"[*_~`]+(?:\s+|$)")
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Span:
    """``text[start:end]`` is one sentence, heading, table row or code line, without white space around it."""

    start: int
    end: int
    kind: Kind


@dataclass(slots=True)
class _Run:
    """Lines that belong together: a paragraph, an item, or one line of another kind."""

    kind: Kind
    start: int
    end: int
    lines: int = 1


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The sentences of a region of a text, in order, with offsets into the whole text.

    A hard-wrapped paragraph is one run of prose, so its sentences may hold line ends. The marker of a heading, a list
    item or a quotation is not part of its sentence.
    """
    end = len(text) if end is None else end
    spans: list[Span] = []
    for run in _runs(text, start, end):
        pieces = [(run.start, run.end)]
        if run.kind in ("prose", "list"):
            pieces = [(run.start + first, run.start + last) for first, last in boundaries(text[run.start : run.end])]
        for first, last in pieces:
            first, last = trimmed(text, first, last)
            if first < last and (run.kind == "code" or _WORD.search(text, first, last)):
                spans.append(Span(first, last, run.kind))
    return spans


def boundaries(prose: str) -> list[tuple[int, int]]:
    """Start and end of each sentence of a paragraph, the white space after it included.

    Marks that close emphasis after a full stop belong to the sentence they close: ``**Budgets hold.** A call ...``
    """
    found: list[dict[str, Any]] = cast(Any, sentencex).get_sentence_boundaries("en", prose)
    ends = [sentence["end_index"] for sentence in found]
    for place, end in enumerate(ends[:-1]):
        closing = _CLOSING.match(prose, end)
        if closing and end > 0 and not prose[end - 1].isspace():
            ends[place] = min(closing.end(), ends[place + 1])
    return list(zip([0, *ends], ends, strict=False))


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A region without the white space at its ends; an empty one when there is nothing else."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


def _runs(text: str, start: int, end: int) -> Iterator[_Run]:
    """A paragraph or an item ends at a blank line or where another kind begins; other kinds are runs of one line."""
    fenced = (text.count("\n```", 0, start) + text.startswith("```", 0, start)) % 2 == 1
    run: _Run | None = None
    for first, last in _lines(text, start, end):
        line = text[first:last]
        fence = _FENCE.match(line) is not None and (fenced or not _underlines(line, text, run))
        fenced = fenced != fence
        kind: Kind | None = None if fence else "code" if fenced else _kind(line)
        if run is not None and kind == "prose":
            run.end, run.lines = last, run.lines + 1
            continue
        if run is not None:
            if kind is None and run.kind == "prose" and run.lines == 1 and _UNDERLINE.match(line.strip()):
                run.kind = "heading"
            yield run
            run = None
        if kind is not None:
            begun = _Run(kind, first + _marker(line, kind), last)
            if kind in ("prose", "list"):
                run = begun
            else:
                yield begun
    if run is not None:
        yield run


def _kind(line: str) -> Kind | None:
    """The kind of a line by itself; None for a blank line, an underline or a directive."""
    stripped = line.strip()
    if not stripped or _UNDERLINE.match(stripped) or _DIRECTIVE.match(stripped):
        return None
    if _HEADING.match(line):
        return "heading"
    if _TABLE.match(stripped):
        return "table"
    return "list" if _ITEM.match(line) else "prose"


def _underlines(line: str, text: str, run: _Run | None) -> bool:
    """Whether tildes are the underline of the title above, as in reStructuredText, and not the start of a fence."""
    if run is None or run.kind != "prose" or run.lines > 1 or not line.startswith("~~~"):
        return False
    return not line.strip("~ \t") and len(line.rstrip()) >= len(text[run.start : run.end].rstrip())


def _marker(line: str, kind: Kind) -> int:
    """The length of what marks a line as what it is."""
    pattern = {"heading": _HEADING, "list": _ITEM, "prose": _QUOTED}.get(kind)
    found = pattern.match(line) if pattern else None
    return found.end() if found else 0


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        yield start, stop
        start = stop + 1
