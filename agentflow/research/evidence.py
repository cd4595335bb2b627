"""Evidence: the passages that retrieval found, numbered, and the drafts of claims written from them.

A draft names passages by number and quotes them; only ``citations`` turns a draft into a verified claim. Imports
corpus, retrieval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from agentflow.research.corpus import Chunk
from agentflow.research.retrieval import Hit


class DraftCitation(BaseModel):
    """Where a draft claim says it stands."""

    model_config = ConfigDict(extra="forbid")

    passage: int = Field(ge=1, description="number of the passage, as in [P1]")
    quote: str = Field(min_length=1, description="the words of that passage that carry the claim, copied verbatim")


class DraftClaim(BaseModel):
    """One statement and the quotes it rests on."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, description="one statement that answers part of the question")
    question: int = Field(default=1, ge=1, description="number of the sub-question it answers, from 1")
    citations: list[DraftCitation] = Field(min_length=1)


class Draft(BaseModel):
    """What a synthesiser writes. With ``answered`` false there are no claims: the passages do not tell."""

    model_config = ConfigDict(extra="forbid")

    answered: bool
    claims: list[DraftClaim] = Field(default_factory=list["DraftClaim"])


@dataclass(frozen=True, slots=True)
class Passage:
    """A numbered chunk, its best score, and the sub-questions (from 0) it was found for."""

    number: int
    chunk: Chunk
    score: float
    questions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All passages for all sub-questions, best first within each, each chunk once."""

    question: str
    sub_questions: tuple[str, ...]
    passages: tuple[Passage, ...]

    @classmethod
    def gather(cls, question: str, sub_questions: Sequence[str], found: Sequence[Sequence[Hit]], most: int) -> Evidence:
        """Merge what was found for each sub-question, taking turns, up to ``most`` passages in all."""
        questions_of: dict[tuple[str, int], list[int]] = {}
        best: dict[tuple[str, int], Hit] = {}
        for rank in range(max((len(hits) for hits in found), default=0)):
            for number, hits in enumerate(found):
                if rank < len(hits):
                    hit = hits[rank]
                    key = (hit.chunk.source.id, hit.chunk.start)
                    questions_of.setdefault(key, []).append(number)
                    best.setdefault(key, hit)
        passages = [
            Passage(place, best[key].chunk, best[key].score, tuple(numbers))
            for place, (key, numbers) in enumerate(list(questions_of.items())[:most], start=1)
        ]
        return cls(question, tuple(sub_questions), tuple(passages))

    def of(self, question: int) -> tuple[Passage, ...]:
        """The passages found for one sub-question, from 0."""
        return tuple(passage for passage in self.passages if question in passage.questions)
