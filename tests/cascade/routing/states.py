"""States to decide on, and synthetic outcomes to learn from: three rungs, a question's difficulty behind them all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agentflow.cascade.reply import Verdict
from agentflow.cascade.routing.examples import Examples
from agentflow.cascade.routing.learned import Prices
from agentflow.cascade.routing.state import Decision, Expected, RungFacts, Seen, State, Worth

NAMES = ("small", "medium", "large")
COSTS = tuple(Expected(usd, usd * 1e6, usd * 1e3) for usd in (1e-5, 5e-5, 3e-4))
PRICES = Prices(COSTS)
WORTH = Worth(good=0.002)


def rungs(**changes: object) -> tuple[RungFacts, ...]:
    return tuple(RungFacts(name, cost, **changes) for name, cost in zip(NAMES, COSTS, strict=True))  # type: ignore[arg-type]


def seen(rung: int, confidence: float | None = None, answer: str | None = None, *, valid: bool = True) -> Seen:
    return Seen(rung, Verdict(valid, confidence), answer)


def state(
    *attempts: Seen, task: str = "easy", worth: Worth = WORTH, features: tuple[float, ...] = (), **changes: object
) -> State:
    return State(rungs(**changes), attempts, worth, task=task, features=features)


def unlearned(decision: Decision) -> Decision:
    """A decision of the fixed order, as a policy tells it that has learned nothing of a state."""
    return replace(decision, reason=f"{decision.reason} (nothing is learned of this yet: fixed order)")


def examples(n: int = 800, seed: int = 0, *, told: bool = False) -> Examples:
    """Rungs that know, more or less well, when they are right; two tasks, one harder than the other."""
    rng = np.random.default_rng(seed)
    task = np.where(rng.uniform(size=n) < 0.5, "easy", "hard")
    ease = rng.normal(size=n) + np.where(task == "easy", 1.0, -0.5)
    skill = np.array([-0.7, 0.6, 1.6])
    strength = ease[:, None] + skill + rng.normal(size=(n, 3)) * 0.7
    good = (strength > 0).astype(float)
    confidence = 1 / (1 + np.exp(-2 * (strength + rng.normal(size=(n, 3)) * 0.5)))
    # Good answers are all the same, wrong ones one of three.
    answers = np.where(good > 0, 0, rng.integers(1, 4, size=(n, 3)))
    # Two numbers of each question: one tells how easy it is, roughly; the other nothing.
    numbers = np.stack([ease + 0.5 * rng.normal(size=n), rng.normal(size=n)], axis=1)
    features = tuple((float(a), float(b)) for a, b in numbers.tolist()) if told else ()
    return Examples(NAMES, tuple(task.tolist()), good, confidence, answers, features)
