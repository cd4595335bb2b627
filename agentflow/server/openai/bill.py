"""What a reply cost, as clients read it: in headers, and inside ``usage``. Imports budget, cascade.reply."""

from __future__ import annotations

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
    """What a reply cost, in every currency, all its attempts together."""

    rung: str = Field(description="which model or code served")
    confidence: float | None = None
    usd: str = Field(description="an exact decimal")
    joules: Joules
    grams_co2e: float
    seconds: float
    in_doubt: int = Field(description="attempts charged at their worst case, because their cost never became known")
    attempts: list[AttemptBill]

    @classmethod
    def of(cls, reply: AnyReply) -> Bill:
        """The bill of a reply."""
        spend = reply.spend
        return cls(
            rung=reply.rung, confidence=reply.confidence, usd=decimal_text(spend.nano_usd), joules=_joules(spend),
            grams_co2e=spend.co2e.mean / MICRO, seconds=round(spend.seconds, 6), in_doubt=spend.in_doubt,
            attempts=[_attempt(attempt) for attempt in reply.attempts],
        )  # fmt: skip


def headers(reply: AnyReply) -> dict[str, str]:
    """The bill in headers, for whoever sees no further than those."""
    spend = reply.spend
    energy = spend.energy
    made = {
        "x-agentflow-rung": reply.rung,
        "x-agentflow-usd": decimal_text(spend.nano_usd),
        "x-agentflow-joules": f"{energy.mean:.6g}",
        "x-agentflow-joules-interval": f"{energy.low:.6g}-{energy.high:.6g}",
        "x-agentflow-tokens": str(spend.tokens),
        "x-agentflow-attempts": str(len(reply.attempts)),
        "x-agentflow-seconds": f"{spend.seconds:.3f}",
    }
    if reply.confidence is not None:
        made["x-agentflow-confidence"] = f"{reply.confidence:.3f}"
    return made


def _joules(spend: Spend) -> Joules:
    energy = spend.energy
    return Joules(mean=energy.mean, low=energy.low, high=energy.high, provenance=energy.provenance)


def _attempt(attempt: Attempt) -> AttemptBill:
    spend = attempt.spend
    return AttemptBill(
        rung=attempt.rung, outcome=attempt.outcome, reason=attempt.reason, tokens=spend.tokens,
        usd=decimal_text(spend.nano_usd), joules=spend.energy.mean, seconds=round(spend.seconds, 6),
    )  # fmt: skip
