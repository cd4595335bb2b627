"""Lanes: what a turn costs in CPU, how true the quantiles are, and where the limit of concurrency settles.

The limit is held against Gradient2 as Netflix published it (concurrency-limits, 2018), on a server that is always full.
Run ``python -m benchmarks.lanes [--json]``.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from agentflow.cascade.concurrency import ConcurrencyLimits, Gradient
from agentflow.cascade.lane import Lane, LaneLimits
from agentflow.cascade.quantiles import Quantiles
from agentflow.cascade.rates import RateLimits
from agentflow.messages import Completion, Timings, TokenUsage
from benchmarks.table import Figure, show

SLOTS, MOST = 16, 400
REPLY = Completion("reply", "model", TokenUsage(10, 5), Timings(0.5, 0.1))


class Law(Protocol):
    @property
    def limit(self) -> int: ...

    def saw(self, first_token_s: float, in_flight: int) -> None: ...


class Gradient2:
    """The published law by its description: a long-term mean of 600 samples, tolerance 1.5, smoothing 0.2, queue 4."""

    def __init__(self, start: int) -> None:
        self._limit, self._long = float(start), 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def saw(self, first_token_s: float, in_flight: int) -> None:
        self._long += (first_token_s - self._long) * (2.0 / 601.0 if self._long else 1.0)
        if self._long > 2.0 * first_token_s:
            self._long *= 0.95
        if in_flight < self._limit / 2.0:
            return
        gradient = min(max(1.5 * self._long / first_token_s, 0.5), 1.0)
        new = gradient * self._limit + 4.0
        self._limit = min(max(0.8 * self._limit + 0.2 * new, 1.0), float(MOST))


def settled(law: Law, samples: int = 40_000) -> tuple[float, float]:
    """Behind a server of 16 slots that is always full: the mean limit, and how busy the slots are, second half."""
    rng, limits = random.Random(0), list[int]()
    for _ in range(samples):
        running = law.limit
        law.saw(0.1 * max(running / SLOTS, 1.0) * rng.lognormvariate(0.0, 0.3), running)
        limits.append(law.limit)
    half = limits[samples // 2 :]
    return sum(half) / len(half), sum(min(limit / SLOTS, 1.0) for limit in half) / len(half)


async def turn_us(limits: LaneLimits | None, turns: int = 10_000) -> float:
    """CPU microseconds of one turn and what is learned from its reply."""
    lane, best = Lane(limits), math.inf
    for _ in range(5):
        started = time.process_time()
        for _ in range(turns):
            with await lane.turn(15) as turn:
                turn.leaves()
                turn.replied(REPLY)
        best = min(best, time.process_time() - started)
    return best / turns * 1e6


def quantile_errors(samples: int = 100_000) -> dict[float, float]:
    """Relative errors on latencies of which 3 % take eight times as long."""
    rng = np.random.default_rng(0)
    values = rng.lognormal(0.0, 0.4, samples) * np.where(rng.random(samples) < 0.03, 8.0, 1.0)
    it = Quantiles()
    for value in values.tolist():
        it.add(value)
    return {q: (it.quantile(q) or 0.0) / float(np.quantile(values, q)) - 1.0 for q in (0.5, 0.95, 0.99, 0.999)}


def figures() -> list[Figure]:
    everything = LaneLimits(concurrency=ConcurrencyLimits(), rates=RateLimits(requests=1e9, tokens=1e12))
    bare, full = asyncio.run(turn_us(None)), asyncio.run(turn_us(everything))
    rows = [
        Figure("a turn without settings", f"{bare:.1f} us CPU", "under 20", bare < 20.0),
        Figure("a turn with slots and rates", f"{full:.1f} us CPU", "under 40", full < 40.0),
    ]
    for q, error in quantile_errors().items():
        rows.append(Figure(f"quantile {q}", f"{error:+.2%}", "within 2 %", abs(error) < 0.02))
    laws: dict[str, Callable[[int], Law]] = {
        "ours": lambda start: Gradient(ConcurrencyLimits(1, MOST, start)),
        "Gradient2": Gradient2,
    }
    for name, law in laws.items():
        for start in (4, MOST):
            mean, busy = settled(law(start))
            passed = (SLOTS <= mean < 3 * SLOTS and busy > 0.97) if name == "ours" else None
            what = f"limit for {SLOTS} slots, {name} from {start}"
            rows.append(Figure(what, f"{mean:.0f}, slots busy {busy:.1%}", f"{SLOTS} to {3 * SLOTS}, 97 %", passed))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    return show("Lanes", figures(), as_json=parser.parse_args().json)


if __name__ == "__main__":
    sys.exit(main())
