"""agentflow cascade calibration: says what is lacking, learns, keeps, shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentflow.cascade.outcomes import Outcome, OutcomeFile, TriedRung
from agentflow.cli.main import cli


def run(*options: str) -> str:
    found = CliRunner().invoke(cli, ["cascade", "calibration", *options], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture
def outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OutcomeFile:
    monkeypatch.chdir(tmp_path)
    return OutcomeFile(tmp_path / ".agentflow/outcomes.jsonl")


def score(outcomes: OutcomeFile, n: int) -> None:
    for number in range(n):
        tried = TriedRung(rung="small", signal=0.5 + 0.4 * (number % 2))
        scored = Outcome(
            at=datetime.now(UTC), cascade="c", task="triage", served="small", score=float(number % 2), tried=(tried,)
        )
        outcomes.add(scored)


def test_with_no_outcomes_it_says_so(outcomes: OutcomeFile) -> None:
    assert "Nothing is calibrated yet" in run()


def test_it_says_how_many_labels_are_lacking(outcomes: OutcomeFile) -> None:
    score(outcomes, 12)
    assert "small at 'triage': 12 of the 50 labels" in run("--learn")


def test_what_was_learned_is_kept_and_shown(outcomes: OutcomeFile) -> None:
    score(outcomes, 60)
    assert "60 labels, not learned from yet" in run()
    assert "platt" in run("--learn")
    shown = run()
    assert "small" in shown and "60" in shown and f"{datetime.now(UTC):%Y-%m-%d}" in shown
    (of,) = json.loads(run("--json"))["maps"]
    assert (of["rung"], of["task"], of["n"]) == ("small", "triage", 60)
    assert of["ece_after"] < of["ece_before"]
