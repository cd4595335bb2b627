"""What a call comes back with: the reply, and the trail of attempts behind it. May import budget and messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from agentflow.budget.spend import Spend
from agentflow.errors import BudgetExceeded
from agentflow.messages import Completion, Request, ToolCall

Output = TypeVar("Output", covariant=True)
RungKind = Literal["code", "model"]
Outcome = Literal["accepted", "kept", "rejected", "failed", "refused", "skipped", "cancelled", "evidence"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checks say of a reply.

    ``confidence`` is the estimated chance, 0 to 1, that the reply is good; None when no check gives one.
    ``reason`` says why it is not valid, in words that a model can act on.
    """

    valid: bool
    confidence: float | None = None
    reason: str = ""

    def __and__(self, other: Verdict) -> Verdict:
        """Both must hold: the lesser confidence and every reason are kept."""
        known = [c for c in (self.confidence, other.confidence) if c is not None]
        reasons = "; ".join(r for r in (self.reason, other.reason) if r)
        return Verdict(self.valid and other.valid, min(known, default=None), reasons)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One rung trying one call: what it cost, what the checks said, why it was not enough.

    ``outcome`` is ``accepted``, ``kept`` (valid, but a better rung was left to try), ``rejected`` (failed its
    checks), ``failed`` (the backend gave no reply), ``refused`` (the budget has no room; nothing was sent), ``skipped``
    (the rung could not be asked: it takes no images, is down, full, or would answer too late; nothing was sent),
    ``cancelled`` (another attempt replied first, or the call was given up) or ``evidence`` (asked for what it says of
    another reply, not to be served). ``confidence`` is what the checks' ``signal`` is worth by what was learned of this
    rung; the same where nothing was. ``answer`` is a digest that equal answers share. A ``hedge`` is a second attempt,
    beside a late one. A ``replayed`` reply is the one that an earlier run of the job was given; a ``reused`` one was
    given to another call, and cost nothing now. ``site`` is the region that served, where a model has several.
    """

    rung: str
    kind: RungKind
    number: int
    outcome: Outcome
    spend: Spend
    confidence: float | None = None
    reason: str = ""
    repair: bool = False
    replayed: bool = False
    in_doubt: bool = False
    signal: float | None = None
    answer: str | None = None
    hedge: bool = False
    reused: bool = False
    site: str = ""


@dataclass(frozen=True, slots=True)
class Reply(Generic[Output]):
    """The answer to a call, typed, with its trail.

    ``output`` is the parsed value, ``text`` what the model wrote. ``refusal`` is set when a dearer rung was
    not tried because the budget had no room for it. ``completion`` is what the serving model handed back, None when
    code served. ``cascade`` and ``call`` are the names under which it is reported, ``request``
    is what was asked. ``waited_s`` is how long the call
    waited for a better hour.
    """

    output: Output
    text: str
    rung: str
    kind: RungKind
    confidence: float | None
    attempts: tuple[Attempt, ...]
    refusal: BudgetExceeded | None = None
    completion: Completion | None = None
    cascade: str = ""
    call: str = ""
    request: Request | None = field(default=None, repr=False)
    waited_s: float = 0.0

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model asks to be called."""
        return () if self.completion is None else self.completion.tool_calls

    @property
    def spend(self) -> Spend:
        """What all attempts used together."""
        return sum((attempt.spend for attempt in self.attempts), Spend())

    @property
    def reused(self) -> bool:
        """Whether it was given to an earlier call, and is given again at no cost."""
        return any(attempt.reused and attempt.outcome == "accepted" for attempt in self.attempts)

    @property
    def escalations(self) -> int:
        """How many different rungs were tried beyond the first."""
        tried = {a.rung for a in self.attempts if a.outcome not in ("refused", "skipped", "cancelled")}
        return max(0, len(tried) - 1)


AnyReply = Reply[Any]
