"""Hedging under load, simulated: replicas that take one request each and queue the rest, and what the tail becomes.

The trigger and the bucket are those of ``agentflow.cascade.hedging``. A hedge feeds back: it is work for the same
replicas, so a rule that is good for one request can drown them all. Run ``python -m benchmarks.hedging [--json]``.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections import deque
from dataclasses import asdict, dataclass, field

from agentflow.cascade.hedging import HedgeLimits, Hedges
from agentflow.cascade.quantiles import Quantiles, Trigger
from benchmarks.table import Figure, show


@dataclass(frozen=True)
class Load:
    """What comes in; times are in units of the median service.

    Service is lognormal(0, 0.4), and 2 % take ten times as long. ``rate`` is the share of the replicas' capacity that
    the requests ask for.
    """

    rate: float
    requests: int = 120_000
    replicas: int = 32
    seed: int = 0

    def service(self, rng: random.Random) -> float:
        time = rng.lognormvariate(0.0, 0.4)
        return time * 10.0 if rng.random() < 0.02 else time

    @property
    def mean_service(self) -> float:
        # exp(sigma^2 / 2), and 2 % of it ten times.
        return 1.0832870676749586 * (0.98 + 0.02 * 10.0)


@dataclass(frozen=True)
class Strategy:
    """When a second request leaves: after a fixed ``delay``, or after a ``quantile`` that adapts; else never.

    ``share`` caps the second requests, ``cancel`` ends the one of the two that loses.
    """

    quantile: float | None = None
    delay: float | None = None
    cancel: bool = True
    share: float | None = None


@dataclass(frozen=True)
class Tail:
    """What came of it. ``work`` is the replicas' busy time over that of the requests alone."""

    p50: float
    p90: float
    p95: float
    p99: float
    hedged: float
    work: float


@dataclass(eq=False)
class _Copy:
    """A request at a replica; ``ends`` once it runs."""

    request: _Request
    replica: int
    service: float
    ends: float | None = None
    dead: bool = False


@dataclass(eq=False)
class _Request:
    at: float
    copies: list[_Copy] = field(default_factory=list)
    done: bool = False


class _Simulation:
    """Replicas of one slot, first come, first served; random routing; a hedge goes to another replica."""

    def __init__(self, load: Load, strategy: Strategy) -> None:
        self.load, self.strategy = load, strategy
        self.rng = random.Random(load.seed)
        self.queues: list[deque[_Copy]] = [deque() for _ in range(load.replicas)]
        self.running: list[_Copy | None] = [None] * load.replicas
        self.events: list[tuple[float, int, str, object]] = []
        self.numbers = 0
        self.trigger = None if strategy.quantile is None else Trigger(strategy.quantile)
        self.bucket = None if strategy.share is None else Hedges(HedgeLimits(share=strategy.share))
        self.latencies = Quantiles()
        self.hedged = 0
        self.work = self.asked = 0.0

    def at(self, time: float, kind: str, what: object) -> None:
        self.numbers += 1
        heapq.heappush(self.events, (time, self.numbers, kind, what))

    def run(self) -> Tail:
        load, time = self.load, 0.0
        pace = load.rate * load.replicas / load.mean_service
        for _ in range(load.requests):
            time += self.rng.expovariate(pace)
            self.at(time, "arrives", _Request(time))
        while self.events:
            now, _, kind, what = heapq.heappop(self.events)
            if kind == "ends":
                assert isinstance(what, _Copy)
                self.ends(now, what)
                continue
            assert isinstance(what, _Request)
            if kind == "arrives":
                self.arrives(now, what)
            else:
                self.late(now, what)
        p50, p90, p95, p99 = (self.latencies.quantile(q) or 0.0 for q in (0.5, 0.9, 0.95, 0.99))
        return Tail(p50, p90, p95, p99, self.hedged / load.requests, self.work / self.asked)

    def arrives(self, now: float, request: _Request) -> None:
        first = self.send(now, request)
        self.asked += first.service
        if self.bucket is not None:
            self.bucket.called()
        delay = self.strategy.delay if self.trigger is None else self.trigger.value
        if delay is not None:
            self.at(now + delay, "late", request)

    def late(self, now: float, request: _Request) -> None:
        if request.done or (self.bucket is not None and not self.bucket.take()):
            return
        self.hedged += 1
        self.send(now, request)

    def send(self, now: float, request: _Request) -> _Copy:
        taken = [copy.replica for copy in request.copies]
        replica = self.rng.choice([r for r in range(self.load.replicas) if r not in taken]) if taken else (
            self.rng.randrange(self.load.replicas)
        )  # fmt: skip
        copy = _Copy(request, replica, self.load.service(self.rng))
        request.copies.append(copy)
        self.queues[replica].append(copy)
        self.start(now, replica)
        return copy

    def start(self, now: float, replica: int) -> None:
        queue = self.queues[replica]
        while self.running[replica] is None and queue:
            copy = queue.popleft()
            if not copy.dead:
                copy.ends = now + copy.service
                self.running[replica] = copy
                self.at(copy.ends, "ends", copy)

    def ends(self, now: float, copy: _Copy) -> None:
        if copy.dead:
            return
        self.work += copy.service
        self.running[copy.replica] = None
        request = copy.request
        if not request.done:
            request.done = True
            self.latencies.add(now - request.at)
            if self.trigger is not None:
                self.trigger.add(now - request.at)
            if self.strategy.cancel:
                self.cancel(now, [other for other in request.copies if other is not copy])
        self.start(now, copy.replica)

    def cancel(self, now: float, copies: list[_Copy]) -> None:
        for copy in copies:
            copy.dead = True
            if copy.ends is not None:
                self.work += copy.service - (copy.ends - now)
                self.running[copy.replica] = None
                self.start(now, copy.replica)


def simulate(load: Load, strategy: Strategy) -> Tail:
    """Run one strategy under one load."""
    return _Simulation(load, strategy).run()


OURS = "p90, cancel, cap"
CONTROL = "fixed p90, no cancel"
LOADS = (0.3, 0.5, 0.7, 0.8, 0.89)


def strategies(plain: Tail) -> dict[str, Strategy]:
    """What is compared. Fixed delays are quantiles of the same load without hedges."""
    return {
        "p85, cancel, cap": Strategy(0.85, share=0.05),
        OURS: Strategy(0.9, share=0.05),
        "p95, cancel, cap": Strategy(0.95, share=0.05),
        "p90, cancel": Strategy(0.9),
        "p90, no cancel": Strategy(0.9, cancel=False),
        "fixed p90, cancel": Strategy(delay=plain.p90),
        "fixed p95, cancel": Strategy(delay=plain.p95),
        "fixed p95, no cancel": Strategy(delay=plain.p95, cancel=False),
        CONTROL: Strategy(delay=plain.p90, cancel=False),
    }


def compare(requests: int) -> dict[float, dict[str, Tail]]:
    """Every strategy under every load."""
    tails: dict[float, dict[str, Tail]] = {}
    for rate in LOADS:
        load = Load(rate, requests)
        tails[rate] = {"none": simulate(load, Strategy())}
        tails[rate] |= {name: simulate(load, it) for name, it in strategies(tails[rate]["none"]).items()}
    return tails


def figures(tails: dict[float, dict[str, Tail]]) -> list[Figure]:
    """Every tail, with what must hold of ours, and the control that must collapse."""
    rows: list[Figure] = []
    for rate, row in tails.items():
        plain = row["none"]
        for name, tail in row.items():
            value = f"p50 {tail.p50:7.1f}  p95 {tail.p95:7.1f}  p99 {tail.p99:7.1f}  "
            value += f"hedged {tail.hedged:5.1%}  work x{tail.work:.2f}"
            against, passed = "", None
            if name == OURS:
                against = f"p95 <= {0.9 * plain.p95:.1f}, p50 <= {1.2 * plain.p50:.1f}, hedged <= 5 %"
                passed = tail.p95 <= 0.9 * plain.p95 and tail.p50 <= 1.2 * plain.p50 and tail.hedged <= 0.0501
            elif name == CONTROL and rate >= 0.7:
                against = "must collapse"
                passed = tail.p50 > 20 * plain.p50
            rows.append(Figure(f"load {rate:.2f}  {name}", value, against, passed))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    tails = compare(arguments.requests)
    rows = figures(tails)
    notes = ["Times in units of the median service. Cap: 5 % of the requests."]
    if arguments.json:
        print(
            json.dumps({name: {str(load): asdict(tail) for load, tail in row.items()} for name, row in tails.items()})
        )
        return 1 if any(figure.passed is False for figure in rows) else 0
    return show("Hedging under load (32 replicas, simulated)", rows, notes)


if __name__ == "__main__":
    sys.exit(main())
