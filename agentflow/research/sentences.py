"""Sentences with exact offsets, in text that may be Markdown. Splitting is sentencex's; blocks are found by line rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import sentencex

Kind = Literal["prose", "heading", "code", "table", "list"]

_FENCE = re.compile(r"[ \t]*(```|~~~)")
_HEADING = re.compile(r"#{1,6}[ \t]+\S")
_UNDERLINE = re.compile(r"([=\-~^\"'*+])\1{2,}[ \t]*$")
_TABLE = re.compile(r"[ \t]*\|")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+(?=\S)")
# What is left of bold or italic text when a sentence ends inside it.
_LEFTOVER = re.compile(r"[\s)\]]*(?:\*{1,3}|_{1,3})(?=\s)")
_DIRECTIVE = re.compile(r"\.\. |!!! |\?\?\? |::: |<!--|\[[^\]]+\]: ")


@dataclass(frozen=True, slots=True)
class Span:
    """``text[start:end]`` is one sentence, heading, table row or code line, without white space around it."""

    start: int
    end: int
    kind: Kind


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The sentences of a region of a text, in order, with offsets into the whole text.

    A hard-wrapped paragraph is one run of prose, so its sentences may hold line ends. The marker of a list item is
    not part of its sentence.
    """
    end = len(text) if end is None else end
    spans: list[Span] = []
    for kind, first, last in _blocks(text, start, end):
        if kind in ("prose", "list"):
            spans.extend(_split(text, first, last, kind))
        else:
            spans.extend(_trim(text, first, last, kind))
    return spans


def _blocks(text: str, start: int, end: int) -> Iterator[tuple[Kind, int, int]]:
    """Runs of lines of one kind. A paragraph or an item ends at a blank line or where another kind begins."""
    fenced = (text.count("\n```", 0, start) + text.startswith("```")) % 2 == 1
    run: tuple[Kind, int, int] | None = None
    for first, last in _lines(text, start, end):
        line = text[first:last]
        if _FENCE.match(line):
            fenced = not fenced
            kind: Kind | None = None
        elif fenced:
            kind = "code"
        else:
            kind = _kind(line)
        item = _ITEM.match(line) if kind == "list" else None
        starts_anew = kind is None or kind != "prose" or run is None
        if starts_anew:
            if run is not None:
                yield run
            run = None if kind is None else (kind, item.end() + first if item else first, last)
        elif run is not None:
            run = (run[0], run[1], last)
        if run is not None and run[0] not in ("prose", "list"):
            yield run
            run = None
    if run is not None:
        yield run


def _kind(line: str) -> Kind | None:
    """The kind of a line by itself; None for a blank line, an underline or a directive."""
    stripped = line.strip()
    if not stripped or _UNDERLINE.match(stripped) or _DIRECTIVE.match(stripped):
        return None
    if _HEADING.match(line):
        return "heading"
    if _TABLE.match(line):
        return "table"
    return "list" if _ITEM.match(line) else "prose"


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        yield start, stop
        start = stop + 1


def _split(text: str, start: int, end: int, kind: Kind) -> Iterator[Span]:
    position = start
    for sentence in sentencex.segment("en", text[start:end]):
        found = text.find(sentence, position, end)
        if found < 0:
            continue
        position = found + len(sentence)
        yield from _trim(text, found, position, kind)


def _trim(text: str, start: int, end: int, kind: Kind) -> Iterator[Span]:
    leftover = _LEFTOVER.match(text, start, end)
    start = leftover.end() if leftover else start
    part = text[start:end]
    left = len(part) - len(part.lstrip())
    if part.strip():
        yield Span(start + left, start + len(part.rstrip()), kind)
