from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.research.citations import names, numbers, stands, verify_draft, why_unsupported
from agentflow.research.corpus import Corpus
from agentflow.research.evidence import Draft, DraftCitation, DraftClaim, Evidence
from agentflow.research.report import Citation
from agentflow.research.retrieval import Bm25Index
from agentflow.research.sources import Source

TEXT = (
    "# Tides\n\nThe tide in the Bay of Fundy rises by 16.3 metres. Nothing on Earth rises higher.\n\n"
    "The moon pulls the\nwater twice a day. It does not pull the sand.\n\nIn 1,869 a storm named Saxby broke the dykes."
)


def source(text: str = TEXT, number: int = 1) -> Source:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Source(f"s{number}", "tides.md", "Tides", text, digest, "2026-01-01T00:00:00+00:00", "text/markdown")


def evidence() -> tuple[Evidence, Bm25Index]:
    index = Bm25Index.build(Corpus.build([source()]))
    question = "How high is the tide in the Bay of Fundy?"
    return Evidence.gather(question, [question], [index.search(question, 5)], 5), index


def draft(text: str, quote: str, passage: int = 1, question: int = 1) -> Draft:
    citation = DraftCitation(passage=passage, quote=quote)
    return Draft(answered=True, claims=[DraftClaim(text=text, question=question, citations=[citation])])


def test_a_claim_that_its_quote_carries_is_verified_to_the_byte() -> None:
    found, index = evidence()
    quote = "The tide in the Bay of Fundy rises by 16.3 metres."
    verified = verify_draft(draft("In the Bay of Fundy the tide rises 16.3 metres.", quote), found, index.lexicon)
    (claim,) = verified.claims
    (citation,) = claim.citations
    assert TEXT[citation.start : citation.end] == citation.quote == quote
    assert citation.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert stands(citation, TEXT)
    assert claim.support > 0.9


def test_a_quote_that_differs_in_white_space_takes_the_texts_own() -> None:
    found, index = evidence()
    verified = verify_draft(draft("The moon pulls the water.", "The moon pulls the water"), found, index.lexicon)
    assert verified.claims[0].citations[0].quote == "The moon pulls the\nwater"


RISES = "The tide in the Bay of Fundy rises by 16.3 metres."
PULLS = "The moon pulls the\nwater twice a day."


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (draft("The tide rises by 16.3 metres.", "The tide rises by sixteen metres."), "does not stand"),
        (draft("The tide in the Bay of Fundy rises by 17 metres.", RISES), "the number 17"),
        (draft("The tide in the Bay of Biscay rises by 16.3 metres.", RISES), "'Biscay'"),
        (draft("Saxby Gale broke the dykes in 1869.", "In 1,869 a storm named Saxby broke the dykes."), "'Gale'"),
        (draft("The moon does not pull the water.", PULLS), "denies"),
        (draft("The moon pulls the sand.", "It does not pull the sand."), "denies"),
        (draft("Tides are driven by gravity from celestial bodies.", PULLS), "covers"),
        (draft("The tide rises.", "The tide", passage=9), "passage 9"),
        (draft("The tide rises.", "The tide", question=3), "sub-question 3"),
    ],
)  # fmt: skip
def test_a_claim_that_fails_is_unsupported_with_the_reason(made: Draft, reason: str) -> None:
    found, index = evidence()
    verified = verify_draft(made, found, index.lexicon)
    assert verified.claims == ()
    assert reason in verified.unsupported[0].reason


def test_numbers_are_compared_by_value() -> None:
    assert numbers("In 1,869 and 16.30 or 7.0 and +5") == {"1869", "16.3", "7", "5"}
    assert (
        why_unsupported(
            "In 1869 Saxby broke the dykes.", ["In 1,869 a storm named Saxby broke the dykes."], evidence()[1].lexicon
        )
        is None
    )


def test_names_are_capitalised_words_acronyms_and_identifiers() -> None:
    assert names("The lab of Marie Curie used hold_tokens and the GPU with vLLM.") == {
        "Marie",
        "Curie",
        "hold_tokens",
        "GPU",
        "vLLM",
    }


@given(st.text(min_size=1), st.integers(0, 50), st.integers(1, 50))
def test_a_span_stands_exactly_when_the_text_says_so(text: str, start: int, length: int) -> None:
    quote = text[start : start + length]
    if quote:
        citation = Citation(source_id="s1", start=start, end=start + len(quote), quote=quote, sha256="0" * 64)
        assert stands(citation, text)
        other = chr((ord(quote[0]) + 1) % 0xD000)
        assert not stands(citation, f"{text[:start]}{other}{text[start + 1 :]}")
        assert not stands(citation, text[: start + len(quote) - 1])
