"""A report as Markdown: report.md. Text from sources and models is escaped. Imports numbering, report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from agentflow.research.rendering.numbering import (
    Numbered,
    Section,
    all_citations,
    clean,
    day,
    joules,
    limit_line,
    not_read,
    sections,
    served,
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
        *_citations(all_citations(parts)),
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
        for claim, cited in part.claims:
            marks = "".join(f"[\\[{n.number}\\]](#cite-{n.number})" for n in cited)
            yield f"{_line(claim.text)} {marks}"


def _unsupported(report: Report) -> Iterator[str]:
    if report.unsupported:
        yield "## Unsupported"
        yield "These statements failed verification. They are no part of the answer."
        yield "\n".join(f"- {_line(u.text)}: *{_line(u.reason)}*" for u in report.unsupported)


def _citations(numbered: list[Numbered]) -> Iterator[str]:
    if not numbered:
        return
    yield "## Citations"
    for n in numbered:
        span = f"characters {n.citation.start}–{n.citation.end}"
        quote = "\n".join(f"> {_line(line)}" for line in clean(n.citation.quote).splitlines() if line.strip())
        yield f'<a id="cite-{n.number}"></a>**[{n.number}]** {_line(n.place)}, {span}\n\n{quote}'


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
