"""How good replies turned out to be: one line of a file for each, from which confidence and policies are learned.

Lines hold rungs, signals and digests of answers, never a prompt or a reply. May import reply and errors; ``chain``
writes them, ``calibration`` and ``routing`` learn from them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentflow.cascade.reply import AnyReply
from agentflow.cascade.routing.router import question_features
from agentflow.errors import UsageError

# A score from here on calls a reply good.
GOOD: Final = 0.5
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class TriedRung(BaseModel):
    """One rung's reply: what its checks said, and a digest that equal answers share.

    ``score`` is its own, where every rung's reply was scored: in a file made from questions whose answers are known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    rung: str
    signal: Share | None = None
    valid: bool = True
    answer: str | None = None
    score: Share | None = None


class Outcome(BaseModel):
    """One call that somebody, or something, has scored.

    ``features`` are numbers of the question, for a query router: its length, its share of digits and the like.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    at: datetime
    cascade: str
    task: str
    served: str
    score: Share
    tried: tuple[TriedRung, ...]
    features: tuple[float, ...] = ()

    @classmethod
    def of(cls, reply: AnyReply, score: float) -> Outcome:
        """The outcome of a reply.

        Raises:
            UsageError: the score does not lie from 0 to 1.
        """
        if not 0.0 <= score <= 1.0:
            raise UsageError(f"A score lies from 0 (useless) to 1 (good), got {score!r}.")
        # The last reply of a rung counts: an earlier one was mended.
        tried = {
            attempt.rung: TriedRung(
                rung=attempt.rung,
                signal=attempt.signal,
                valid=attempt.outcome != "rejected",
                answer=attempt.answer,
            )
            for attempt in reply.attempts
            if attempt.outcome in ("accepted", "kept", "rejected")
        }
        return cls(
            at=datetime.now(UTC),
            cascade=reply.cascade,
            task=reply.call,
            served=reply.rung,
            score=score,
            tried=tuple(tried.values()),
            features=() if reply.request is None else question_features(reply.request.messages[-1].content),
        )

    def good(self, tried: TriedRung) -> bool | None:
        """Whether that rung's reply was good; None when nobody can tell.

        The served reply's score is its own. Another rung's reply shares it when it is the same answer, and is not good
        when it differs from a good one; what differs from a bad one may be either.
        """
        if tried.score is not None:
            return tried.score >= GOOD
        served_good = self.score >= GOOD
        if tried.rung == self.served:
            return served_good
        if not tried.valid:
            return False
        served = next((one.answer for one in self.tried if one.rung == self.served), None)
        if tried.answer is None or served is None:
            return None
        if tried.answer == served:
            return served_good
        return False if served_good else None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A signal and whether the reply behind it was good: what calibration learns from."""

    rung: str
    task: str
    signal: float
    good: bool


class OutcomeFile:
    """Outcomes in a file of JSON lines, appended to by any number of processes.

    Args:
        path: the file; it and its folder are made with the first outcome.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, outcome: Outcome) -> None:
        """Write one outcome, whole, at the end.

        Raises:
            UsageError: the file cannot be written.
        """
        line = outcome.model_dump_json().encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write to a file opened for appending is not torn by another process's.
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror}. Check the folder.") from error

    def read(self) -> Iterator[Outcome]:
        """Every outcome, in order; a last line that a dead process left half written is passed over.

        Raises:
            UsageError: the file cannot be read, or a line is no outcome; it names the line.
        """
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path} cannot be read as text. Check the path.") from error
        whole, _, _ = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            if not line.strip():
                continue
            try:
                yield Outcome.model_validate_json(line)
            except ValidationError as error:
                wrong = error.errors(include_input=False)[0]
                where = ".".join(map(str, wrong["loc"])) or "the line"
                raise UsageError(
                    f"{self.path}, line {number}: {where}: {wrong['msg']}. Mend or remove that line."
                ) from error


def labelled(outcomes: Iterable[Outcome]) -> Iterator[Labelled]:
    """Every signal whose reply is known to have been good or not."""
    for outcome in outcomes:
        for tried in outcome.tried:
            good = outcome.good(tried)
            if tried.signal is not None and tried.valid and good is not None:
                yield Labelled(tried.rung, outcome.task, tried.signal, good)
