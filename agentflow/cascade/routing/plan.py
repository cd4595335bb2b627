"""A plan: at every node, what each further step is expected to gain, with the steps after it taken as planned.

Solved backwards over the labelled questions: first the nodes with nothing left to do, then those one step before.
The gain of a step is a ridge regression on what is known at its node; what it costs is known when it is chosen.
Imports posterior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from agentflow.cascade.routing.evidence import Evidence, Node
from agentflow.cascade.routing.posterior import Posterior, Served
from agentflow.cascade.routing.regression import Floats, left_out, ridge

_PENALTY = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """Ask a rung, or read the signal of one that was asked; ``to`` is where that leads."""

    kind: Literal["ask", "probe"]
    rung: int
    to: Node

    def price(self, evidence: Evidence) -> Floats:
        """In good replies, per question."""
        return (evidence.price if self.kind == "ask" else evidence.signal_price)[:, self.rung]


@dataclass(frozen=True, slots=True)
class Graph:
    """Where climbs can be and what can be done there.

    Args:
        rungs: that may be asked.
        free: signals ride on replies; else each is a step with a price of its own.
        depth: rungs asked in one call at most.
    """

    rungs: tuple[int, ...]
    free: bool
    depth: int = 2

    def nodes(self) -> list[Node]:
        """Every node, the end of climbs first, the start last."""
        found = [
            Node(asked, read)
            for size in range(self.depth + 1)
            for asked in combinations(self.rungs, size)
            for count in ([size] if self.free else range(size + 1))
            for read in combinations(asked, count)
        ]
        return sorted(found, key=lambda node: (-len(node.asked), -len(node.read), node.asked, node.read))

    def steps(self, node: Node) -> list[Step]:
        """What can be done at a node."""
        steps: list[Step] = []
        if len(node.asked) < self.depth:
            more = [rung for rung in self.rungs if rung not in node.asked]
            steps += [Step("ask", rung, node.ask(rung, read=self.free)) for rung in more]
        unread = [rung for rung in node.asked if rung not in node.read]
        return steps + [Step("probe", rung, node.probe(rung)) for rung in unread]


class Plan:
    """What each step gains at these prices.

    Args:
        graph: nodes and steps.
        posterior: chances at its nodes.
        evidence: the labelled questions that the posterior was learned from, at the prices to plan for.

    Example:
        >>> # gains = plan.gains(node, plan.posterior.served(node, evidence), evidence)   n x steps, in chances
    """

    def __init__(self, graph: Graph, posterior: Posterior, evidence: Evidence, designs: Designs | None = None) -> None:
        self.graph = graph
        self.posterior = posterior
        self._weights: dict[Node, Floats] = {}
        designs = designs or Designs(graph, posterior, evidence)
        values: dict[Node, Floats] = {}
        rows = np.arange(len(evidence))
        for node in graph.nodes():
            ended = posterior.learned[node].chance
            steps = graph.steps(node)
            if not steps:
                values[node] = ended
                continue
            prices = np.stack([step.price(evidence) for step in steps], axis=1)
            gained = np.stack([values[step.to] - ended for step in steps], axis=1)
            x, solver = designs.of(node)
            self._weights[node] = solver @ gained
            # A question's own luck must not choose its step, or noise would look like gain.
            net = left_out(x, solver, gained) - prices
            step = net.argmax(axis=1)
            goes = (net[rows, step] > 0) | (not node.asked)
            values[node] = np.where(goes, ended + (gained - prices)[rows, step], ended)

    def gains(self, node: Node, served: Served, evidence: Evidence) -> Floats:
        """N x steps: the chance that each step adds, less the price of what would follow it, in good replies."""
        found: Floats = self.posterior.about(node, served, evidence) @ self._weights[node]
        return found


class Designs:
    """What regressions of gains look at, and their solvers: the same at all prices, so made once for many plans."""

    def __init__(self, graph: Graph, posterior: Posterior, evidence: Evidence) -> None:
        self._of: dict[Node, tuple[Floats, Floats]] = {}
        for node in graph.nodes():
            if graph.steps(node):
                x = posterior.about(node, posterior.learned[node], evidence)
                self._of[node] = (x, ridge(x, _PENALTY))

    def of(self, node: Node) -> tuple[Floats, Floats]:
        """Columns and solver of a node that has steps."""
        return self._of[node]


def choose_steps(net: Floats, node: Node) -> Sequence[int]:
    """Per question the step of the greatest gain above its price; -1 where it is best to stop."""
    best = net.argmax(axis=1)
    goes = (net[np.arange(len(net)), best] > 0) | (not node.asked)
    return np.where(goes, best, -1).tolist()
