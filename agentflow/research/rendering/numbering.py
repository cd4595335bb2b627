"""What every rendering shares: numbered citations, sections, figures as words. Imports report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from agentflow.budget.currency import Currency, format_amount, format_grams
from agentflow.budget.money import format_usd, nano_from_decimal
from agentflow.energy.interval import format_joules
from agentflow.research.length import word_count
from agentflow.research.report import Citation, Claim, EnergyFigure, Limit, Report, SourceEntry
from agentflow.research.sources.source import SourceDate

# Control characters, and the ones that turn the direction of text: a source must not steer a reader's screen.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_SHORT_QUOTE = 160
_FOR_THEIR_DAY = {"date": "outside the dates asked for", "undated": "undated"}
# What an address may hold as it is: no brackets, quotes or spaces, which could end a link.
_OF_ADDRESSES = "%/:=&?~#+!$,;@*-._"
LEFT_OUT = "Its claims were left out to keep to the words asked for."


@dataclass(frozen=True, slots=True)
class Numbered:
    """A citation with its number in the report, and where it stands."""

    number: int
    citation: Citation
    source: SourceEntry
    line: int
    claim: int

    @property
    def place(self) -> str:
        """``docs/budget.md:12``."""
        return f"{self.source.origin}:{self.line}"

    @property
    def address(self) -> str | None:
        """Where a reader can follow it to, percent-encoded; None of a file."""
        if not self.source.origin.startswith(("http://", "https://")):
            return None
        return quote(self.source.origin, safe=_OF_ADDRESSES, errors="replace")


@dataclass(frozen=True, slots=True)
class Section:
    """A sub-question with its claims, each with the numbers of its citations."""

    heading: str
    answered: bool
    claims: tuple[tuple[Claim, tuple[Numbered, ...]], ...]


def sections(report: Report, texts: Mapping[str, str]) -> list[Section]:
    """Claims under their sub-questions, citations numbered from 1; one span has one number however often cited."""
    sources = {source.id: source for source in report.sources}
    known: dict[tuple[str, int, int], Numbered] = {}
    grouped: list[list[tuple[Claim, tuple[Numbered, ...]]]] = [[] for _ in report.sub_questions]
    for place, claim in enumerate(report.claims):
        cited: list[Numbered] = []
        for citation in claim.citations:
            key = (citation.source_id, citation.start, citation.end)
            if key not in known:
                line = texts.get(citation.source_id, "").count("\n", 0, citation.start) + 1
                known[key] = Numbered(len(known) + 1, citation, sources[citation.source_id], line, place + 1)
            cited.append(known[key])
        grouped[claim.question].append((claim, tuple(dict.fromkeys(cited))))
    return [
        Section(question.text, question.answered, tuple(claims))
        for question, claims in zip(report.sub_questions, grouped, strict=True)
    ]


def all_citations(parts: list[Section]) -> list[Numbered]:
    """Every numbered citation once, in the order of its number."""
    found = {n.number: n for part in parts for _, cited in part.claims for n in cited}
    return [found[number] for number in sorted(found)]


def notes(report: Report) -> Iterator[str]:
    """What a reader has to know of the answer's length and language, a line each."""
    most = report.max_words
    if most is not None and report.left_out:
        count = len(report.left_out)
        claims = "claim stands and was" if count == 1 else "claims stand and were"
        yield f"{count} more {claims} left out to keep to {most:,} words."
    if most is not None and report.claims and (words := word_count(report.claims[0].text)) > most:
        yield f"The first claim alone has {words:,} words, and {most:,} were asked for: it was kept whole."
    if any(claim.original is not None for claim in report.claims):
        yield f"The claims were verified as their sources have them, then translated ({report.language})."
    unjudged = sum(1 for claim in report.claims if claim.judged is False)
    if unjudged:
        yield f"{unjudged} of {len(report.claims)} claims were not judged by a model: their quotes were checked alone."


def clean(text: str) -> str:
    """Text without control characters, escape sequences and direction overrides."""
    return _CONTROL.sub("", _ANSI.sub("", text))


def short(text: str) -> str:
    """A quote in one line of bounded length."""
    line = " ".join(clean(text).split())
    return line if len(line) <= _SHORT_QUOTE else line[: _SHORT_QUOTE - 1].rstrip() + "…"


def usd(text: str) -> str:
    """Exact dollars, for people."""
    from decimal import Decimal

    return format_usd(nano_from_decimal(Decimal(text)))


def joules(figure: EnergyFigure) -> str:
    """Joules with their interval and provenance."""
    if figure.high == 0:
        return "0 J"
    if figure.low == figure.high:
        return f"{format_joules(figure.mean)} ({figure.provenance})"
    ends = f"{format_joules(figure.low)} to {format_joules(figure.high)}"
    return f"{format_joules(figure.mean)} ({ends}, {figure.provenance})"


def amount(currency: Currency, text: str) -> str:
    """A limit's figure with its unit."""
    match currency:
        case "usd":
            return usd(text)
        case "joules":
            return format_joules(float(text))
        case "tokens":
            return f"{int(text):,} tokens"
        case "grams_co2e":
            return format_grams(float(text))
        case "calls":
            return format_amount("calls", int(text))
        case "seconds":
            return f"{float(text):.3g} s"


def limit_line(limit: Limit) -> str:
    """``312 of 2,000 tokens``."""
    return f"{amount(limit.currency, limit.spent)} of {amount(limit.currency, limit.limit)}"


def served(report: Report) -> str:
    """Which rung served each step, in one line."""
    return "; ".join(f"{step}: {rung}" for step, rung in report.rungs.items()) or "none"


def day(source: SourceEntry) -> str:
    """The day of a source and what tells it; ``undated`` where nothing does."""
    return str(SourceDate.of({"date": source.date, "date_from": source.date_from}) or "undated")


def not_read(report: Report) -> str:
    """How many sources were not read, and how many of them for their day."""
    why = Counter(skipped.cause for skipped in report.skipped)
    days = [f"{why[cause]} {words}" for cause, words in _FOR_THEIR_DAY.items() if why[cause]]
    told = f" ({', '.join(days)})" if days else ""
    return f"Not read: {len(report.skipped):,}{told}"


def summary(report: Report) -> str:
    """The bill in one line: calls, tokens, dollars, joules, seconds."""
    total = report.meter.total
    tokens = total.input_tokens + total.output_tokens
    doubt = f", {total.in_doubt_calls} in doubt" if total.in_doubt_calls else ""
    calls = f"{total.calls} calls{doubt}"
    return f"{calls} · {tokens:,} tokens · {usd(total.usd)} · {joules(total.joules)} · {total.seconds:.2f} s"
