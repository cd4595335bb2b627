"""What replies cost, as clients read it: in headers, and inside ``usage``. Imports budget, cascade.reply.

No web framework: workers write bills too.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from agentflow.budget.currency import MICRO
from agentflow.budget.money import decimal_text
from agentflow.budget.spend import Spend
from agentflow.cascade.reply import AnyReply, Attempt


class Joules(BaseModel):
    """Joules with their 90 % interval and where they come from."""

    mean: float
    low: float
    high: float
    provenance: str


class AttemptBill(BaseModel):
    """One rung that tried."""

    rung: str
    outcome: str
    reason: str = Field(default="", description="why it was not enough")
    tokens: int
    usd: str
    joules: float
    seconds: float


class Bill(BaseModel):
    """What a reply cost, in every currency, all its attempts together; of several replies, all of theirs."""

    rung: str = Field(description="which model or code served; of several replies, each once, with commas between")
    confidence: float | None = Field(default=None, description="of several replies, the least")
    usd: str = Field(description="an exact decimal")
    joules: Joules
    grams_co2e: float
    seconds: float
    in_doubt: int = Field(description="attempts charged at their worst case, because their cost never became known")
    ignored: list[str] = Field(default=[], description="what was asked for and the model is known not to have heeded")
    attempts: list[AttemptBill]

    @classmethod
    def of(cls, *replies: AnyReply) -> Bill:
        """The bill of one reply or more."""
        spend = spend_of(replies)
        heard = [reply.completion for reply in replies if reply.completion is not None]
        return cls(
            rung=_rungs(replies), confidence=_confidence(replies), usd=decimal_text(spend.nano_usd),
            joules=_joules(spend), grams_co2e=spend.co2e.mean / MICRO, seconds=round(spend.seconds, 6),
            in_doubt=spend.in_doubt, ignored=list(dict.fromkeys(name for one in heard for name in one.ignored)),
            attempts=[_attempt(attempt) for reply in replies for attempt in reply.attempts],
        )  # fmt: skip


def headers(*replies: AnyReply) -> dict[str, str]:
    """The bill in headers, for whoever sees no further than those."""
    spend = spend_of(replies)
    energy, confidence = spend.energy, _confidence(replies)
    made = {
        "x-agentflow-rung": _rungs(replies),
        "x-agentflow-usd": decimal_text(spend.nano_usd),
        "x-agentflow-joules": f"{energy.mean:.6g}",
        "x-agentflow-joules-interval": f"{energy.low:.6g}-{energy.high:.6g}",
        "x-agentflow-tokens": str(spend.tokens),
        "x-agentflow-attempts": str(sum(len(reply.attempts) for reply in replies)),
        "x-agentflow-seconds": f"{spend.seconds:.3f}",
    }
    if confidence is not None:
        made["x-agentflow-confidence"] = f"{confidence:.3f}"
    return made


def spend_of(replies: Sequence[AnyReply]) -> Spend:
    """What all attempts of all replies used."""
    return sum((reply.spend for reply in replies), Spend())


def _rungs(replies: Sequence[AnyReply]) -> str:
    return ",".join(dict.fromkeys(reply.rung for reply in replies))


def _confidence(replies: Sequence[AnyReply]) -> float | None:
    known = [reply.confidence for reply in replies]
    return min((one for one in known if one is not None), default=None)


def _joules(spend: Spend) -> Joules:
    energy = spend.energy
    return Joules(mean=energy.mean, low=energy.low, high=energy.high, provenance=energy.provenance)


def _attempt(attempt: Attempt) -> AttemptBill:
    spend = attempt.spend
    return AttemptBill(
        rung=attempt.rung, outcome=attempt.outcome, reason=attempt.reason, tokens=spend.tokens,
        usd=decimal_text(spend.nano_usd), joules=spend.energy.mean, seconds=round(spend.seconds, 6),
    )  # fmt: skip
