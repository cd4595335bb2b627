"""A real cascade: three tiny models in llama.cpp add numbers, through the SDK.

Their token confidences are calibrated on 300 additions; then 500 others are asked of the cascade, and of each rung
alone. Policies, calibration and the meter are those of the package.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentflow.budget.ledger import MemoryLedger
from agentflow.cascade.calibration import Calibration
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.checks import token_confidence
from agentflow.cascade.outcomes import Labelled
from agentflow.cascade.policy import Policy
from agentflow.config import Settings
from agentflow.runtime import Runtime

Problems = Sequence[tuple[str, str]]

TASK = "add"
RUNGS = Path(__file__).parents[1] / "tests/fixtures/rungs"
NAMES = ("small", "medium", "large")
# The chance of being right from which a reply is taken; chosen on the calibration additions alone.
THRESHOLDS = tuple(share / 100 for share in range(50, 100, 2))
CALIBRATE, ASKED, BLOCK = 300, 500, 10


@dataclass(frozen=True)
class Run:
    """Additions answered: how many, how many of them right, and what they took."""

    problems: int
    right: int
    served: Counter[str]
    asked: Counter[str]
    joules: float
    seconds: float

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return self.right / self.problems


@dataclass(frozen=True)
class Live:
    """The cascade beside its rungs alone."""

    cascade: Run
    alone: dict[str, Run]
    accept: float
    calibration: Calibration

    @property
    def large_share(self) -> float:
        """The share of calls that asked the large rung."""
        return self.cascade.asked["large"] / ASKED

    def figures(self) -> dict[str, float]:
        """As printed with --json."""
        large = self.alone["large"]
        return {
            "accuracy": self.cascade.accuracy,
            "large_accuracy": large.accuracy,
            "large_share": self.large_share,
            "accept": self.accept,
            "joules": self.cascade.joules,
            "large_joules": large.joules,
            "joules_saved": 1 - self.cascade.joules / large.joules,
            "seconds": self.cascade.seconds,
            "large_seconds": large.seconds,
            "seconds_saved": 1 - self.cascade.seconds / large.seconds,
        }


def additions(n: int, seed: int) -> list[tuple[str, str]]:
    """Questions and answers as the rungs were trained on: the longer number has one to five digits, all as likely."""
    rng = random.Random(seed)
    found: list[tuple[str, str]] = []
    for _ in range(n):
        digits = rng.randint(1, 5)
        a, b = rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits), rng.randrange(10**digits)
        if rng.random() < 0.5:
            a, b = b, a
        found.append((f"{a}+{b}", str(a + b)))
    return found


async def answer(runtime: Runtime, cascade: Cascade, problems: Problems) -> tuple[Run, list[Labelled]]:
    """Ask a cascade everything; also what the serving rung's bare confidence was worth."""
    right, served, asked, labels = 0, Counter[str](), Counter[str](), list[Labelled]()
    async with runtime.chain("live") as chain:
        for question, truth in problems:
            reply = await chain.call(question, name=TASK, checks=(token_confidence,), cascade=cascade)
            good = reply.text.strip() == truth
            right += good
            served[reply.rung] += 1
            asked.update({attempt.rung for attempt in reply.attempts})
            signal = reply.attempts[-1].signal
            if signal is not None:
                labels.append(Labelled(reply.rung, TASK, signal, good))
        spent = chain.spend
    return Run(len(problems), right, served, asked, spent.energy.mean, spent.seconds), labels


async def live() -> Live:
    """Calibrate, choose the threshold, ask."""
    runtime = Runtime(Settings.model_validate({"models": {name: _model(name) for name in NAMES}}), MemoryLedger())
    try:
        rungs = {name: runtime.rung(name) for name in NAMES}
        alone = {name: Cascade(name, (rung,), Policy(repairs=0)) for name, rung in rungs.items()}
        truths: dict[str, list[Labelled]] = {}
        for name in NAMES:
            # Loading a model is no part of a call.
            await answer(runtime, alone[name], additions(3, seed=9))
            _, truths[name] = await answer(runtime, alone[name], additions(CALIBRATE, seed=1))
        calibration = Calibration.learn(label for labels in truths.values() for label in labels)
        accept = threshold(truths, calibration)
        climbing = Cascade("live", tuple(rungs.values()), Policy(accept, repairs=0, calibration=calibration))
        whole, *singles = await in_turns(runtime, [climbing, *alone.values()], additions(ASKED, seed=2))
    finally:
        await runtime.aclose()
    return Live(whole, dict(zip(NAMES, singles, strict=True)), accept, calibration)


async def in_turns(runtime: Runtime, cascades: Sequence[Cascade], problems: Problems) -> list[Run]:
    """Ask every cascade everything, a few problems at a time: what else the machine does then slows all alike."""
    runs: list[list[Run]] = [[] for _ in cascades]
    for first in range(0, len(problems), BLOCK):
        for made, cascade in zip(runs, cascades, strict=True):
            made.append((await answer(runtime, cascade, problems[first : first + BLOCK]))[0])
    return [
        Run(
            len(problems),
            sum(run.right for run in made),
            sum((run.served for run in made), Counter()),
            sum((run.asked for run in made), Counter()),
            sum(run.joules for run in made),
            sum(run.seconds for run in made),
        )
        for made in runs
    ]


def threshold(truths: Mapping[str, Sequence[Labelled]], calibration: Calibration) -> float:
    """The lowest threshold at which the cascade is as good as the large rung alone, on the calibration additions."""
    large = sum(label.good for label in truths["large"])
    for accept in THRESHOLDS:
        right = 0
        for climb in zip(*truths.values(), strict=True):
            chances = [calibration.probability(label.rung, label.task, label.signal) for label in climb]
            enough = (label for label, p in zip(climb, chances, strict=True) if p is None or p >= accept)
            right += next(enough, climb[-1]).good
        if right >= large:
            return accept
    return THRESHOLDS[-1]


def _model(name: str) -> dict[str, object]:
    return {
        "backend": "llamacpp",
        "path": RUNGS / f"{name}.gguf",
        "context": 256,
        "logprobs": True,
        "default_output": 8,
    }


def run_live() -> Live:
    """The same, from code that is not async."""
    return asyncio.run(live())
