"""Labelled outcomes to learn from: every rung's reply to the same questions, judged.

A file of them is JSON lines, one object for each question and rung::

    {"call": "q17", "task": "triage", "signal": "tokens", "rung": "small", "good": 1, "confidence": 0.93,
     "answer": "yes", "usd": 0.00002, "joules": 1.4, "seconds": 0.3}

Questions that some rung did not answer are left out. Imports evidence and regression.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentflow.cascade.routing.regression import Floats, Ints
from agentflow.errors import UsageError


class Outcome(BaseModel):
    """One rung's judged reply to one question."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    call: str
    task: str = "call"
    signal: str = "tokens"
    rung: str
    good: Annotated[float, Field(ge=0.0, le=1.0)]
    confidence: Annotated[float, Field(ge=0.0, le=1.0)]
    answer: str
    usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    joules: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    signal_usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0


@dataclass(frozen=True, slots=True)
class Examples:
    """n questions that all m rungs answered.

    Args:
        rungs: their names, in the cascade's order.
        task: n names of calls.
        signal: n names of what confidence was read from.
        good: n x m, 0 to 1.
        confidence: n x m, raw signals as probabilities.
        answers: n x m, equal numbers for equal answers of one question.
        usd: n x m; ``joules`` and ``seconds`` the same, ``signal_usd`` for signals that are calls of their own.
    """

    rungs: tuple[str, ...]
    task: tuple[str, ...]
    signal: tuple[str, ...]
    good: Floats
    confidence: Floats
    answers: Ints
    usd: Floats
    joules: Floats
    seconds: Floats
    signal_usd: Floats

    def __len__(self) -> int:
        """How many questions."""
        return len(self.task)

    def of(self, rows: Sequence[int]) -> Examples:
        """Some of the questions."""
        at = list(rows)
        return Examples(
            self.rungs, tuple(self.task[i] for i in at), tuple(self.signal[i] for i in at), self.good[at],
            self.confidence[at], self.answers[at], self.usd[at], self.joules[at], self.seconds[at], self.signal_usd[at],
        )  # fmt: skip

    @classmethod
    def gather(cls, outcomes: Sequence[Outcome], rungs: tuple[str, ...]) -> Examples:
        """Questions that every rung answered, from single outcomes; the latest counts."""
        calls: dict[str, dict[str, Outcome]] = defaultdict(dict)
        for outcome in outcomes:
            calls[outcome.call][outcome.rung] = outcome
        whole = [[of[rung] for rung in rungs] for of in calls.values() if all(rung in of for rung in rungs)]

        def matrix(name: str) -> Floats:
            return np.array([[getattr(o, name) for o in row] for row in whole], float).reshape(len(whole), len(rungs))

        numbers = [numbered({at: o.answer for at, o in enumerate(row)}, len(rungs)) for row in whole]
        return cls(
            rungs, tuple(row[0].task for row in whole), tuple(row[0].signal for row in whole), matrix("good"),
            matrix("confidence"), np.array(numbers, np.int64).reshape(len(whole), len(rungs)), matrix("usd"),
            matrix("joules"), matrix("seconds"), matrix("signal_usd"),
        )  # fmt: skip


def numbered(answers: Mapping[int, str | None], rungs: int) -> list[int]:
    """Equal numbers for equal answers; a rung without one agrees with nobody."""
    first: dict[str, int] = {}
    found = [-1 - rung for rung in range(rungs)]
    for rung, answer in answers.items():
        if answer is not None:
            found[rung] = first.setdefault(answer, rung)
    return found


def read_outcomes(path: Path) -> list[Outcome]:
    """Outcomes from a file of JSON lines.

    Raises:
        UsageError: the file cannot be read, or a line is not an outcome.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Outcomes cannot be read from {path}: {error}. Give a file of JSON lines.") from error
    found: list[Outcome] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(Outcome.model_validate_json(line))
            except ValidationError as error:
                fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
                where = ".".join(map(str, fault["loc"])) or "line"
                raise UsageError(
                    f"{path}, line {number} is not an outcome ({where}: {fault['msg']}). It needs call, rung, good "
                    "(0 to 1), confidence (0 to 1) and answer."
                ) from error
    return found
