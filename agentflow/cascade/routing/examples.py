"""Labelled questions to learn from: every rung's reply to the same question, judged. May import outcomes, evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentflow.cascade.outcomes import Outcome
from agentflow.cascade.routing.regression import Floats, Ints


@dataclass(frozen=True, slots=True)
class Examples:
    """n questions that all m rungs answered.

    Args:
        rungs: their names, in the cascade's order.
        task: n names of calls.
        good: n x m, 0 or 1.
        confidence: n x m, signals as probabilities.
        answers: n x m, equal numbers for equal answers of one question.
        features: n times k numbers of the question (``question_features``, or an embedding); empty when not known.
    """

    rungs: tuple[str, ...]
    task: tuple[str, ...]
    good: Floats
    confidence: Floats
    answers: Ints
    features: tuple[tuple[float, ...], ...] = ()

    def __len__(self) -> int:
        """How many questions."""
        return len(self.task)

    @classmethod
    def gather(cls, outcomes: Iterable[Outcome], rungs: Sequence[str]) -> Examples:
        """The questions that every rung answered with a signal, and of whose replies it is known how good they were.

        Example:
            >>> # Examples.gather(OutcomeFile(path).read(), ("small", "large"))
        """
        tasks: list[str] = []
        features: list[tuple[float, ...]] = []
        rows: list[tuple[list[float], list[float], list[int]]] = []
        for outcome in outcomes:
            tried = {one.rung: one for one in outcome.tried if one.valid}
            if not all(rung in tried for rung in rungs):
                continue
            ones = [tried[rung] for rung in rungs]
            good = [outcome.good(one) for one in ones]
            signals = [one.signal for one in ones]
            if None in good or None in signals:
                continue
            answers = numbered({place: one.answer for place, one in enumerate(ones)}, len(rungs))
            rows.append(([float(g or 0) for g in good], [s or 0.0 for s in signals], answers))
            tasks.append(outcome.task)
            features.append(outcome.features)
        shape = (len(rows), len(rungs))
        return cls(
            tuple(rungs),
            tuple(tasks),
            np.array([good for good, _, _ in rows], np.float64).reshape(shape),
            np.array([signals for _, signals, _ in rows], np.float64).reshape(shape),
            np.array([answers for _, _, answers in rows], np.int64).reshape(shape),
            tuple(features) if len({len(of) for of in features}) == 1 else (),
        )


def numbered(answers: Mapping[int, str | None], rungs: int) -> list[int]:
    """Equal numbers for equal answers; a rung without one agrees with nobody."""
    first: dict[str, int] = {}
    found = [-1 - rung for rung in range(rungs)]
    for rung, answer in answers.items():
        if answer is not None:
            found[rung] = first.setdefault(answer, rung)
    return found
