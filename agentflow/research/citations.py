"""Citations: drafts in, verified claims out. Verification is code; no model is asked whether a model was right.

A claim stands when every quote stands verbatim in its stored source, every name and number of the claim occurs in
the quotes, it does not turn them round, and the quotes cover enough of what the claim says. Embedding similarity is
not used: it tells topic, not support. Imports evidence, lexicon, report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agentflow.research.evidence import Draft, DraftCitation, DraftClaim, Evidence, Passage
from agentflow.research.lexicon import Lexicon, terms
from agentflow.research.report import Citation, Claim, Unsupported

SUPPORT_THRESHOLD = 0.6
# Not inside of names (H200); scripts that are written without spaces, as Chinese, have no inside.
_NUMBER = re.compile(r"(?<![^\W\u2e80-\U0010ffff])(?<!\.)[-+]?\d(?:[\d,]*\d)?(?:\.\d+)?")
_IDENTIFIER = re.compile(r"\b(?:\w+_\w+|[a-z]+[A-Z]\w*|[A-Z][a-z]+[A-Z]\w*|\w*\d\w*[A-Za-z]\w*|[A-Z]{2,}\w*)\b")
_CAPITALISED = re.compile(r"\b[A-Z][\w'-]*(?:\s+[A-Z][\w'-]*)*")
_SENTENCE_START = re.compile(r"(?:^|[.!?:]\s+|[\"“(]\s*)$")
_NEGATION = re.compile(r"\b(?:not|no|never|none|nothing|neither|nor|cannot|without|\w+n['’]t)\b", re.IGNORECASE)
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of a draft: the claims that stand, and those that do not with the reason."""

    claims: tuple[Claim, ...]
    unsupported: tuple[Unsupported, ...]


def verify_draft(draft: Draft, evidence: Evidence, lexicon: Lexicon, threshold: float = SUPPORT_THRESHOLD) -> Verified:
    """Check every claim of a draft against the stored texts."""
    claims: list[Claim] = []
    unsupported: list[Unsupported] = []
    for drafted in draft.claims:
        outcome = _verify(drafted, evidence, lexicon, threshold)
        if isinstance(outcome, Claim):
            claims.append(outcome.model_copy(update={"id": f"c{len(claims) + 1}"}))
        else:
            unsupported.append(Unsupported(text=drafted.text, reason=outcome))
    return Verified(tuple(claims), tuple(unsupported))


def why_unsupported(
    claim: str, quotes: list[str], lexicon: Lexicon, threshold: float = SUPPORT_THRESHOLD
) -> str | None:
    """Why quotes do not carry a claim, or None when they do.

    Args:
        claim: the statement.
        quotes: the verbatim spans it cites.
        lexicon: weighs terms by how telling they are in this corpus.
        threshold: the least share of the claim's weight that the quotes must cover.
    """
    cited = " ".join(quotes)
    missing = [number for number in numbers(claim) if number not in numbers(cited)]
    if missing:
        return f"the number {sorted(missing)[0]} is not in the cited text"
    lowered = _SPACES.sub(" ", cited).lower()
    unnamed = [name for name in names(claim) if name.lower() not in lowered]
    if unnamed:
        return f"'{unnamed[0]}' is not in the cited text"
    if bool(_NEGATION.search(claim)) != bool(_NEGATION.search(cited)) and (_NEGATION.search(claim) or len(quotes) == 1):
        return "it denies what the cited text says, or says what the cited text denies"
    support = lexicon.overlap(terms(claim), terms(cited))
    if support < threshold:
        return f"the cited text covers {support:.0%} of it; {threshold:.0%} is needed"
    return None


def numbers(text: str) -> set[str]:
    """The numbers of a text in one spelling: 1,000 and 1000 and 1000.0 are one."""
    found: set[str] = set()
    for match in _NUMBER.findall(text):
        plain = match.replace(",", "").lstrip("+")
        found.add(plain.rstrip("0").rstrip(".") if "." in plain else plain)
    return found


def names(text: str) -> set[str]:
    """Names and identifiers of a text: capitalised words inside sentences, acronyms, identifiers of code."""
    found = set(_IDENTIFIER.findall(text))
    for match in _CAPITALISED.finditer(text):
        words = match.group().split()
        if _SENTENCE_START.search(text[: match.start()]) and len(words) == 1:
            continue
        found.update(word for word in words if len(word) > 1 and word.lower() not in _NOT_NAMES)
    return found


# Capitalised by habit inside sentences or at the head of a run, and no names.
_NOT_NAMES = frozenset("the a an in on of and or it its this that these those when if for with by to as at i".split())


def locate(quote: str, passage: Passage) -> tuple[int, int] | None:
    """Where a quote stands in its source: offsets into the stored text, or None.

    A quote that differs from the text only in white space is found too; the citation then takes the text's own.
    """
    text, start = passage.chunk.source.text, passage.chunk.start
    found = text.find(quote, start, passage.chunk.end)
    if found >= 0 and quote.strip():
        return found, found + len(quote)
    words = quote.split()
    if not words:
        return None
    match = re.compile(r"\s+".join(map(re.escape, words))).search(text, start, passage.chunk.end)
    return match.span() if match else None


def stands(citation: Citation, text: str) -> bool:
    """Whether a citation's quote is, byte for byte, what its span of the stored text says."""
    return text[citation.start : citation.end].encode("utf-8", "surrogatepass") == citation.quote.encode(
        "utf-8", "surrogatepass"
    )


def _verify(drafted: DraftClaim, evidence: Evidence, lexicon: Lexicon, threshold: float) -> Claim | str:
    if not 1 <= drafted.question <= len(evidence.sub_questions):
        return f"it answers sub-question {drafted.question}, and there are {len(evidence.sub_questions)}"
    citations: list[Citation] = []
    for cited in drafted.citations:
        citation = _citation(cited, evidence)
        if isinstance(citation, str):
            return citation
        citations.append(citation)
    text = _SPACES.sub(" ", drafted.text).strip()
    quotes = [citation.quote for citation in citations]
    reason = why_unsupported(text, quotes, lexicon, threshold)
    if reason is not None:
        return reason
    support = lexicon.overlap(terms(text), terms(" ".join(quotes)))
    return Claim(
        text=text, citations=tuple(citations), question=drafted.question - 1, support=round(min(support, 1.0), 3)
    )


def _citation(cited: DraftCitation, evidence: Evidence) -> Citation | str:
    if cited.passage > len(evidence.passages):
        return f"it cites passage {cited.passage}, and there are {len(evidence.passages)}"
    passage = evidence.passages[cited.passage - 1]
    span = locate(cited.quote, passage)
    if span is None:
        return f"its quote does not stand in passage {cited.passage}"
    source = passage.chunk.source
    return Citation(
        source_id=source.id, start=span[0], end=span[1], quote=source.text[span[0] : span[1]], sha256=source.sha256
    )
