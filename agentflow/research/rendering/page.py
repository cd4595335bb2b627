"""A report as one self-contained page: report.html. No script, no request to anywhere. Imports numbering, report.

Clicking a citation follows a link to its span in the right pane, which the style sheet highlights by ``:target``.
Every citation has its own copy of its source's surroundings with its span marked, so spans that overlap cannot
disturb each other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from agentflow.research.rendering.numbering import (
    LEFT_OUT,
    Numbered,
    all_citations,
    amount,
    clean,
    day,
    joules,
    limit_line,
    not_read,
    notes,
    sections,
    served,
    short,
    summary,
    usd,
)
from agentflow.research.report import NOT_ANSWERED, Report

WINDOW = 1_500


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A cited span in its surroundings: ``before + quote + after`` is a region of the stored text."""

    numbered: Numbered
    before: str
    quote: str
    after: str
    left_out_before: int
    left_out_after: int


def to_html(report: Report, texts: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        report: the report.
        texts: the stored texts of the cited sources, by id.
    """
    import jinja2

    parts = sections(report, texts)
    room = resources.files("agentflow.research.rendering")
    style = room.joinpath("page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "usd": usd, "joules": joules, "limit": limit_line, "clean": clean, "day": day, "short": short,
    }  # fmt: skip
    template = environment.from_string(room.joinpath("page.html.j2").read_text("utf-8"))
    return template.render(
        report=report,
        parts=parts,
        excerpts=[excerpt(numbered, texts[numbered.source.id]) for numbered in all_citations(parts)],
        style=style,
        style_hash=f"sha256-{digest}",
        not_answered=NOT_ANSWERED,
        all_left_out=LEFT_OUT,
        notes=list(notes(report)),
        footnotes=all_citations(parts),
        summary=summary(report),
        served=served(report),
        not_read=not_read(report),
        amount=amount,
    )


def excerpt(numbered: Numbered, text: str) -> Excerpt:
    """The surroundings of a citation, at most ``WINDOW`` characters either side."""
    start, end = numbered.citation.start, numbered.citation.end
    first, last = max(0, start - WINDOW), min(len(text), end + WINDOW)
    return Excerpt(numbered, text[first:start], text[start:end], text[end:last], first, len(text) - last)
