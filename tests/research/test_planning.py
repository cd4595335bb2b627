from __future__ import annotations

import pytest

from agentflow.cascade.checks import Candidate
from agentflow.research.planning import Plan, Planning, heuristic_plan, plan_check, planning_request


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("What is a hold?", ["What is a hold?"]),
        ("What is a hold? How does it end?", ["What is a hold?", "How does it end?"]),
        ("What is a hold and how does it end?", ["What is a hold?", "How does it end?"]),
        ("Who wrote salt and pepper?", ["Who wrote salt and pepper?"]),
        ("difference between BM25 and embeddings?",
         ["Difference between BM25 and embeddings?", "What is BM25?", "What is embeddings?"]),
        ("  ???  ", ["???"]),
    ],
)  # fmt: skip
def test_the_heuristic_planner_splits_where_the_question_does(question: str, parts: list[str]) -> None:
    answer = heuristic_plan(Planning(question, 4))
    assert answer.value.sub_questions == parts
    assert answer.confidence < 0.7, "a configured model is asked"


def test_there_are_never_more_parts_than_allowed() -> None:
    question = " ".join(f"What is thing{n}?" for n in range(10))
    assert len(heuristic_plan(Planning(question, 3)).value.sub_questions) == 3


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (["What is a hold?", "what is a hold?"], "twice"),
        (["a hold", "hold b", "hold c"], "at most 2"),
        (["What is the weather?"], "shares no word"),
        (["hold", " "], "empty"),
    ],
)
def test_a_models_plan_is_checked(parts: list[str], reason: str) -> None:
    request = planning_request("You plan.", Planning("How does a hold end?", 2))
    verdict = plan_check(Candidate(request, Plan(sub_questions=parts), None))
    assert not verdict.valid
    assert reason in verdict.reason
    assert plan_check(Candidate(request, Plan(sub_questions=["How does a hold end?"]), None)).valid
