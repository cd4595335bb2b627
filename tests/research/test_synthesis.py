from __future__ import annotations

import json

import pytest

from agentflow.research.citations import verify_draft
from agentflow.research.corpus import Corpus
from agentflow.research.evidence import Draft, Evidence
from agentflow.research.retrieval import Bm25Index
from agentflow.research.sources import Source
from agentflow.research.synthesis import Synthesis, coverage, extractive_draft, plain
from tests.conftest import DATA
from tests.research.test_citations import source

TIDES = source()
CAKES = source(
    "# Cakes\n\nA sponge cake is made of eggs, sugar and flour. It is baked for thirty minutes at 180 degrees.\n\n"
    "A sponge cake is made of eggs and sugar and flour, as said.\n\n- Butter is not needed in a sponge cake.\n", 2,
)  # fmt: skip


def draft(*questions: str) -> tuple[Draft, Evidence, Bm25Index]:
    index = Bm25Index.build(Corpus.build([TIDES, CAKES]))
    found = Evidence.gather(questions[0], questions, [index.search(q, 5) for q in questions], 10)
    return extractive_draft(Synthesis(found, index.lexicon, 0.6)).value, found, index


def test_sentences_that_cover_the_question_are_quoted_word_for_word_without_doubles() -> None:
    made, found, index = draft("What is a sponge cake made of?")
    texts = [claim.text for claim in made.claims]
    assert any("eggs, sugar and flour" in text for text in texts)
    assert not ("A sponge cake is made of eggs and sugar and flour, as said." in texts and len(texts) > 2)
    verified = verify_draft(made, found, index.lexicon)
    assert len(verified.claims) == len(made.claims)
    assert all(claim.support == 1.0 for claim in verified.claims)


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of Mongolia?",
        "Who founded the Fundy Cake Company in Halifax?",
        "How do I configure a Kubernetes ingress?",
        "???",
    ],
)
def test_what_the_sources_do_not_answer_is_not_answered(question: str) -> None:
    made, _, _ = draft(question)
    assert made == Draft(answered=False)


def test_each_sub_question_is_answered_or_not_by_itself() -> None:
    made, _, _ = draft("How high does the tide rise in the Bay of Fundy?", "Which airline flies to Mongolia?")
    assert made.answered
    assert {claim.question for claim in made.claims} == {1}


def test_a_sentence_that_leans_on_the_one_before_is_quoted_with_it() -> None:
    made, _, _ = draft("How long is a sponge cake baked and at how many degrees?")
    (quote,) = [c.citations[0].quote for c in made.claims if "180 degrees" in c.text]
    assert quote.startswith("A sponge cake is made of")


def test_a_form_of_a_word_that_the_sources_have_counts() -> None:
    index = Bm25Index.build(Corpus.build([source("A budget is never overspent by a chain of calls in this house.")]))
    question = "Can overspending of a chain's budget happen?"
    found = Evidence.gather(question, [question], [index.search(question, 3)], 3)
    assert coverage(question, found.passages, index.lexicon) > 0.9


def test_marks_of_markdown_are_taken_off_the_claim_not_the_quote() -> None:
    assert plain("The **whole** [meter](x.md) uses `hold` and\n  *settle*") == "The whole meter uses hold and settle"


@pytest.mark.skipif(not DATA.is_dir(), reason="the research corpora are not beside this checkout")
def test_real_questions_are_answered_from_their_own_corpus_and_not_from_another() -> None:
    def load(name: str, file: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (DATA / name / file).read_text("utf-8").splitlines()]

    def index_of(name: str) -> Bm25Index:
        sources = [
            Source(str(row["_id"]), name, row.get("title") or "", row["text"] or " ", "0" * 64, "", "text/plain")
            for row in load(name, "corpus.jsonl")
        ]
        return Bm25Index.build(Corpus.build(sources))

    def share(index: Bm25Index, questions: list[str]) -> float:
        hits = index.search_many(questions, 8)
        answered = 0
        for question, found in zip(questions, hits, strict=True):
            passages = Evidence.gather(question, [question], [found], 8).passages
            answered += coverage(question, passages, index.lexicon) >= 0.5
        return answered / len(questions)

    questions = [row["text"] for row in load("hipporag_hotpotqa_dev100", "queries.jsonl")]
    assert share(index_of("hipporag_hotpotqa_dev100"), questions) > 0.7
    assert share(index_of("cranfield"), questions) < 0.05
