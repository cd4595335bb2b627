"""A report as Markdown: report.md. Text from sources and models is escaped. Imports numbering, report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from agentflow.research.output import CitationStyle
from agentflow.research.rendering.numbering import (
    LEFT_OUT,
    Numbered,
    Section,
    all_citations,
    clean,
    day,
    joules,
    limit_line,
    not_read,
    notes,
    sections,
    served,
    short,
    usd,
)
from agentflow.research.report import NOT_ANSWERED, Report

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$])")
_SHOWN_SKIPPED = 5


def to_markdown(report: Report, texts: Mapping[str, str]) -> str:
    """The whole report.

    Args:
        report: the report.
        texts: the stored texts by source id, for line numbers.
    """
    parts = sections(report, texts)
    blocks = [
        f"# {_line(report.question)}",
        *_answer(report, parts),
        *_unsupported(report),
        *_citations(report, all_citations(parts)),
        *_sources(report),
        *_meter(report),
    ]
    return "\n\n".join(blocks) + "\n"


def _answer(report: Report, parts: list[Section]) -> Iterator[str]:
    if report.ending is not None:
        undone = f" Left undone: {', '.join(report.ending.undone)}." if report.ending.undone else ""
        yield f"> **Ended early ({report.ending.reason}).** {_line(report.ending.message)}{_line(undone)}"
    if not report.answered:
        yield f"**{NOT_ANSWERED}**"
        return
    for part in parts:
        if len(parts) > 1:
            yield f"## {_line(part.heading)}"
            if not part.answered:
                yield f"*{NOT_ANSWERED}*"
            elif not part.claims:
                yield f"*{LEFT_OUT}*"
        for claim, cited in part.claims:
            yield f"{_line(claim.text)} {_marks(report.citation_style, cited)}"
    yield from (f"*{_line(note)}*" for note in notes(report))


def _marks(style: CitationStyle, cited: Sequence[Numbered]) -> str:
    """What stands behind a claim for its citations."""
    match style:
        case "numbers":
            return "".join(f"[\\[{n.number}\\]](#cite-{n.number})" for n in cited)
        case "footnotes":
            return "".join(f"[^{n.number}]" for n in cited)
        case "links":
            # A source is linked once behind a claim, however many of its spans the claim cites.
            linked = {n.source.id: n for n in cited}.values()
            return f"({', '.join(_link(n) for n in linked)})"


def _link(numbered: Numbered) -> str:
    address = numbered.address
    name = _line(short(numbered.source.title or numbered.source.origin))
    return _line(numbered.place) if address is None else f"[{name}](<{address}>)"


def _unsupported(report: Report) -> Iterator[str]:
    if report.unsupported:
        yield "## Unsupported"
        yield "These statements failed verification. They are no part of the answer."
        yield "\n".join(f"- {_line(u.text)}: *{_line(u.reason)}*" for u in report.unsupported)


def _citations(report: Report, numbered: list[Numbered]) -> Iterator[str]:
    if not numbered:
        return
    yield "## Citations"
    for n in numbered:
        place = f"{_line(n.place)}, characters {n.citation.start}–{n.citation.end}"
        lines = [_line(line) for line in clean(n.citation.quote).splitlines() if line.strip()]
        if report.citation_style == "footnotes":
            yield f"[^{n.number}]: {place}: “{' '.join(lines)}”"
            continue
        quote = "\n".join(f"> {line}" for line in lines)
        yield f'<a id="cite-{n.number}"></a>**[{n.number}]** {place}\n\n{quote}'


def _sources(report: Report) -> Iterator[str]:
    yield "## Sources"
    yield f"{report.sources_read} read, {len(report.sources)} cited."
    if report.sources:
        rows = [
            f"| {s.id} | {_line(s.title)} | {_line(s.origin)} | {_line(day(s))} | `{s.sha256[:12]}` | {s.read_at} |"
            for s in report.sources
        ]
        yield "\n".join(["| id | title | origin | date | SHA-256 | read |", "|---|---|---|---|---|---|", *rows])
    if report.skipped:
        shown = "; ".join(f"{_line(s.origin)} ({_line(s.reason)})" for s in report.skipped[:_SHOWN_SKIPPED])
        more = f"; and {len(report.skipped) - _SHOWN_SKIPPED} more" if len(report.skipped) > _SHOWN_SKIPPED else ""
        yield f"{not_read(report)}. {shown}{more}."


def _meter(report: Report) -> Iterator[str]:
    yield "## Meter"
    meter = report.meter
    rows = [
        f"| {_line(part.node)} | {part.calls} | {part.input_tokens:,} | {part.output_tokens:,} | {usd(part.usd)} "
        f"| {joules(part.joules)} | {part.seconds:.3f} |"
        for part in (*meter.parts, meter.total)
    ]
    head = "| part | calls | input tokens | output tokens | dollars | joules | seconds |"
    yield "\n".join([head.replace("$", "\\$"), "|---|---:|---:|---:|---:|---:|---:|", *rows])
    if meter.limits:
        yield "Limits: " + "; ".join(limit_line(limit) for limit in meter.limits) + "."
    yield f"Served by: {_line(served(report))}."
    attempts = [
        f"| {_line(a.call)} | {_line(a.rung)} | {_line(a.verdict)} | {a.tokens:,} | {usd(a.usd)} | {a.seconds:.3f} |"
        for a in meter.attempts
    ]
    if attempts:
        yield "\n".join(
            ["| call | rung | verdict | tokens | dollars | seconds |", "|---|---|---|---:|---:|---:|", *attempts]
        )
    yield f"Job {report.job}, {report.created}."


def _line(text: str) -> str:
    """Any text as inert Markdown in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(clean(text).split()))
