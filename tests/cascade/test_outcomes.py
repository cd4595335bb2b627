"""Feedback: a line for each scored reply, without a word of it, from which labels are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.confidence import answer_key
from agentflow.cascade.outcomes import Outcome, OutcomeFile, labelled
from agentflow.chain import Chain
from agentflow.errors import UsageError
from tests.cascade.test_cascade import code


def chain(path: Path, *answers: tuple[str, float]) -> Chain:
    rungs = tuple(code(text, confidence) for text, confidence in answers)
    from dataclasses import replace

    named = tuple(replace(rung, name=f"rung{place}") for place, rung in enumerate(rungs))
    return Chain(Meter("chain"), Cascade("test", named), MemoryLedger(), outcomes=OutcomeFile(path))


async def test_a_scored_reply_is_a_line_without_a_word_of_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "outcomes.jsonl"
    it = chain(path, ("a secret guess", 0.4), ("the secret", 0.9))
    await it.call("What is the secret?", name="ask")
    it.feedback(1.0)
    assert "secret" not in path.read_text()
    (outcome,) = OutcomeFile(path).read()
    assert (outcome.task, outcome.cascade, outcome.served, outcome.score) == ("ask", "test", "rung1", 1.0)
    assert [(t.rung, t.signal) for t in outcome.tried] == [("rung0", 0.4), ("rung1", 0.9)]
    assert [(one.rung, one.signal, one.good) for one in labelled([outcome])] == [
        ("rung0", 0.4, False),
        ("rung1", 0.9, True),
    ]


async def test_rungs_that_agree_share_the_score(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    it = chain(path, ("Paris", 0.4), ("paris.", 0.9))
    await it.call("Capital?")
    it.feedback(1.0)
    assert [one.good for one in labelled(OutcomeFile(path).read())] == [True, True]


async def test_what_differs_from_a_bad_reply_may_be_good_or_bad(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    it = chain(path, ("Paris", 0.4), ("Lyon", 0.9))
    await it.call("Capital?")
    it.feedback(0.0)
    assert [(one.rung, one.good) for one in labelled(OutcomeFile(path).read())] == [("rung1", False)]


async def test_an_older_reply_can_be_scored_later(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    it = chain(path, ("a", 0.8))
    first = await it.call("One?", name="one")
    await it.call("Two?", name="two")
    it.feedback(0.5, first)
    it.feedback(0.25)
    assert [(o.task, o.score) for o in OutcomeFile(path).read()] == [("one", 0.5), ("two", 0.25)]


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf")])
async def test_a_score_out_of_range_is_refused(tmp_path: Path, score: float) -> None:
    it = chain(tmp_path / "o.jsonl", ("a", 0.8))
    await it.call("One?")
    with pytest.raises(UsageError, match="from 0"):
        it.feedback(score)


async def test_there_must_be_a_reply_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no reply to score"):
        chain(tmp_path / "o.jsonl", ("a", 0.8)).feedback(1.0)
    bare = Chain(Meter("chain"), Cascade("test", (code("a", 1.0),)), MemoryLedger())
    await bare.call("One?")
    with pytest.raises(UsageError, match="keeps no outcomes"):
        bare.feedback(1.0)


async def test_a_line_that_a_dead_process_left_is_passed_over_and_a_forged_one_named(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    it = chain(path, ("a", 0.8))
    await it.call("One?")
    it.feedback(1.0)
    with path.open("a") as file:
        file.write('{"version": 1, "at": "20')
    assert len(list(OutcomeFile(path).read())) == 1
    line = json.loads(path.read_text().splitlines()[0]) | {"score": 7}
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=r"o\.jsonl, line 1: score"):
        list(OutcomeFile(path).read())


def test_no_file_is_no_outcomes(tmp_path: Path) -> None:
    assert list(OutcomeFile(tmp_path / "none").read()) == []


async def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    it = chain(tmp_path / "file" / "o.jsonl", ("a", 0.8))
    await it.call("One?")
    with pytest.raises(UsageError, match="cannot be written"):
        it.feedback(1.0)


@given(st.text())
def test_equal_answers_have_equal_keys_however_they_are_spaced(text: str) -> None:
    assert answer_key(text) == answer_key(f"  {text.upper().lower()} !") or text.upper().lower() != text.lower()


def test_typed_answers_are_compared_by_content() -> None:
    assert answer_key({"a": 1, "b": [2]}) == answer_key({"b": [2], "a": 1})
    assert answer_key({"a": 1}) != answer_key({"a": 2})
    assert answer_key("") is None
    assert answer_key(object()) is None


def test_outcome_round_trips() -> None:
    text = (
        '{"version":1,"at":"2026-11-21T10:00:00Z","cascade":"c","task":"t","served":"s","score":0.5,'
        '"tried":[{"rung":"s","signal":0.5,"valid":true,"answer":"ab"}]}'
    )
    assert Outcome.model_validate_json(Outcome.model_validate_json(text).model_dump_json()).served == "s"
