"""``[cascades.NAME]``: rungs in their order, and when to climb."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from agentflow.config.table import Rate, Share, Table

CODE: Final = "code"
# Settings that one policy alone reads: with another they would do nothing.
_READ_BY: Final[Mapping[str, frozenset[str]]] = {
    "utility": frozenset(("floor", "good_usd", "joule_usd", "second_usd")),
    "latency": frozenset(("abreast",)),
    "pinned": frozenset(("pinned",)),
}


class CascadeSettings(Table):
    """An ordered set of rungs."""

    rungs: tuple[str, ...] = Field(min_length=1)
    """Names of models, cheapest first; ``code`` is the step's own code."""
    accept: Share = 0.7
    """Confidence a reply needs while a dearer rung is left."""
    repairs: int = Field(default=1, ge=0, le=5)
    """How often a model is told what was wrong and asked again."""
    min_output: int = Field(default=64, gt=0)
    """Tokens below which a reply is not worth asking for."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds a call may take altogether, over all rungs and repairs."""

    policy: Literal["fixed", "utility", "latency", "pinned"] = "fixed"
    """``fixed``: in this order, until ``accept`` is reached; ``utility``: the rung whose expected gain is worth its
    price, learned from feedback, and the fixed order until there is enough of it; ``latency``: the quickest first,
    ``abreast`` at once; ``pinned``: one rung and no other."""
    pinned: str | None = None
    """``pinned``: the rung; the last one when left out."""
    abreast: int = Field(default=2, ge=1, le=4)
    """``latency``: rungs asked at once. Each is held and paid for."""
    floor: Share = 0.0
    """``utility``: with a smaller chance of being good, no reply is given."""
    good_usd: Rate = Decimal("0.01")
    """``utility``: what a good reply is worth to you, in dollars."""
    joule_usd: Rate = Decimal(0)
    """``utility``: what a joule is worth to you, in dollars, above what a call's price already pays for."""
    second_usd: Rate = Decimal(0)
    """``utility``: what a second of waiting is worth to you, in dollars."""
    router: Literal["off", "logistic", "knn"] = "off"
    """Skip rungs that would probably not do, guessed from the question alone; learned from feedback. It stops by itself
    while its guesses are no better than the mean, which is what happens when the questions change."""
    judge: str | None = None
    """A model that is asked how good a reply is, where nothing else tells it."""
    samples: int | None = Field(default=None, ge=2, le=9)
    """Answers of one rung that are compared with each other, where nothing else tells how good one is."""
    calibrate: bool = True
    """Read confidence by what it has been worth so far: ``chain.feedback``, ``agentflow cascade calibration``."""

    @model_validator(mode="after")
    def _is_one_way(self) -> CascadeSettings:
        if self.judge is not None and self.samples is not None:
            raise ValueError("has both a judge and samples; one of them tells how good a reply is")
        for policy, settings in _READ_BY.items():
            idle = self.said(settings)
            if idle and policy != self.policy:
                raise ValueError(f"{' and '.join(idle)}: of policy '{policy}' alone, and it is '{self.policy}'")
        if self.pinned is not None and self.pinned not in self.rungs:
            raise ValueError(f"is pinned to '{self.pinned}', which is none of its rungs")
        return self

    @field_validator("rungs")
    @classmethod
    def _are_different(cls, rungs: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(rungs)) < len(rungs):
            raise ValueError("names a rung twice; each may stand once, cheapest first")
        return rungs

    def climbed(self, models: int | None) -> tuple[str, ...]:
        """The rungs that are left with so many models from the first on; all with None, or where one is pinned."""
        if models is None or self.policy == "pinned":
            return self.rungs
        left_out = [rung for rung in self.rungs if rung != CODE][models:]
        return tuple(rung for rung in self.rungs if rung not in left_out)
