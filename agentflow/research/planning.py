"""Planning: a question into sub-questions that can be looked up apart. A code rung, a prompt, and a check.

The heuristic planner splits only where the question itself does: several questions, or a comparison. Imports
cascade, earlier, lexicon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from agentflow.cascade.checks import Candidate
from agentflow.cascade.reply import Verdict
from agentflow.cascade.rung import Answer
from agentflow.messages import Message, Request
from agentflow.research.earlier import Earlier, followed
from agentflow.research.lexicon import question_terms

# A heuristic split is a guess: below the usual bar, so that a configured model is asked.
HEURISTIC_CONFIDENCE = 0.5
_ASKS = r"(?:how|what|why|when|where|who|whom|whose|which|does|do|did|is|are|can|could|should|will)"
_SEVERAL = re.compile(rf"\?\s+(?=\S)|;\s+(?={_ASKS}\b)|,?\s+and\s+(?={_ASKS}\b)", re.IGNORECASE)
_COMPARES = re.compile(
    r"^(?:what(?: is|'s)? the )?(?:difference|differences|trade-?offs?) between (?P<one>.+?) and (?P<other>.+?)\??$"
    r"|^compare (?P<one2>.+?) (?:and|with|to) (?P<other2>.+?)[.?]?$"
    r"|^(?:how does )?(?P<one3>.+?) (?:vs\.?|versus|compare (?:to|with)) (?P<other3>.+?)\??$",
    re.IGNORECASE,
)
_LONGEST = 400


class Plan(BaseModel):
    """The sub-questions of a research job."""

    model_config = ConfigDict(extra="forbid")

    sub_questions: list[str] = Field(min_length=1, description="questions that can be looked up apart")


@dataclass(frozen=True, slots=True)
class Planning:
    """The task of the planner: a question, how many parts it may have, and the job that it follows."""

    question: str
    most: int
    earlier: Earlier | None = None


def heuristic_plan(task: Planning) -> Answer:
    """Split where the question itself names several questions or compares two things."""
    parts = [_as_question(part) for part in _SEVERAL.split(task.question.strip()) if question_terms(part)]
    compared = _COMPARES.match(task.question.strip())
    if compared is not None:
        named = [name.strip() for name in compared.groups() if name]
        parts = [_as_question(task.question), *(f"What is {name}?" for name in named)]
    parts = list(dict.fromkeys(parts))[: task.most] or [task.question.strip()]
    if task.earlier is not None:
        parts = [task.earlier.standing_alone(part) for part in parts]
    return Answer(Plan(sub_questions=parts), HEURISTIC_CONFIDENCE)


def planning_request(instructions: str, task: Planning) -> Request:
    """What a model is asked."""
    # What is the same for every question stands first: servers cache the longest prefix that prompts share.
    ask = (
        f"Split the question into at most {task.most} sub-questions that can be looked up apart. "
        "A question that has one part stays whole. Use the question's own words for names and terms.\n"
        'Answer with JSON only: {"sub_questions": ["..."]}\n\n'
        f"{followed(task.earlier)}Question: {task.question}"
    )
    return Request((Message("system", instructions), Message("user", ask)), inputs=task, max_output_tokens=400)


def plan_check(candidate: Candidate) -> Verdict:
    """Sub-questions are few, distinct, not too long, and each is about something the question is about."""
    task: Planning = candidate.request.inputs
    parts: list[str] = candidate.output.sub_questions
    if len(parts) > task.most:
        return Verdict(False, reason=f"there are {len(parts)} sub-questions; at most {task.most} are allowed")
    if len({part.strip().lower() for part in parts}) < len(parts):
        return Verdict(False, reason="a sub-question is there twice")
    about = set(question_terms(task.question))
    if task.earlier is not None:
        about |= set(question_terms(task.earlier.question))
    for number, part in enumerate(parts, start=1):
        if not part.strip() or len(part) > _LONGEST:
            return Verdict(False, reason=f"sub-question {number} is empty or longer than {_LONGEST} characters")
        if about and not about & set(question_terms(part)):
            return Verdict(False, reason=f"sub-question {number} shares no word with the question")
    return Verdict(True)


def _as_question(part: str) -> str:
    part = part.strip().rstrip("?;,. ")
    return f"{part[:1].upper()}{part[1:]}?"
