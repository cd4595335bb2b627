"""An estimator learned from outcomes: what ``ExpectedUtility`` asks at each step of a live call.

Two plans: one for tasks that have labels of their own, which knows how hard they and their questions are, and one for
all others, which looks at replies alone. Imports plan, prior and examples.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np

from agentflow.cascade.routing.drift import Band, DriftMonitor
from agentflow.cascade.routing.evidence import Evidence, Node, one_of, rungs_worth_asking
from agentflow.cascade.routing.examples import Examples, numbered
from agentflow.cascade.routing.plan import Graph, Plan
from agentflow.cascade.routing.posterior import Posterior
from agentflow.cascade.routing.prior import Prior
from agentflow.cascade.routing.regression import Floats
from agentflow.cascade.routing.state import Expected, Probe, State, Try, Worth

# With fewer labels nothing is learned; a task with fewer has no effect of its own.
LEAST_LABELS: Final = 100
# No step of the plan: never worth its price.
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Prices:
    """What each rung is expected to use, in the cascade's order.

    Args:
        rungs: of an attempt.
        signals: of reading a reply's signal; empty when signals ride on replies.
    """

    rungs: tuple[Expected, ...]
    signals: tuple[Expected, ...] = ()


class LearnedEstimator:
    """Chances and gains, from labelled questions that all rungs have answered.

    Args:
        examples: fewer than ``LEAST_LABELS``: nothing is known, and ``served`` says so.
        prices: of the rungs and their signals.
        worth: of a good reply, a joule and a second: what the plan is made for. States should have the same.
        depth: rungs asked in one call at most. A third brings little and costs latency (``benchmarks.cascade``).

    Example:
        >>> # Policy(routing=ExpectedUtility(LearnedEstimator(examples, prices, worth)), worth=worth)
    """

    def __init__(self, examples: Examples, prices: Prices, worth: Worth, depth: int = 2) -> None:
        self.rungs = examples.rungs
        self.examples = len(examples)
        self.tasks: tuple[str, ...] = ()
        self._prior: Prior | None = None
        self._numbers = len(examples.features[0]) if examples.features else 0
        self._plans: dict[bool, Plan] = {}
        self._bands: dict[tuple[str, str], Band] = {}
        if len(examples) < LEAST_LABELS:
            return
        counts = Counter(examples.task)
        self.tasks = tuple(sorted(task for task, count in counts.items() if count >= LEAST_LABELS))
        cost = np.broadcast_to([worth.price(price) for price in prices.rungs], examples.good.shape)
        signal_cost = np.broadcast_to([worth.price(price) for price in prices.signals] or 0.0, examples.good.shape)
        rungs = rungs_worth_asking(examples.good, cost)
        graph = Graph(rungs, free=not prices.signals, depth=depth)
        for named in (True, False):
            about = one_of(examples.task, self.tasks if named else ())
            if named and self.reads_questions:
                numbers = np.array(examples.features, np.float64)
                prior = Prior(numbers, about, examples.good[:, list(rungs)])
                self._prior, about = prior, np.hstack([about, prior.learned])
            evidence = Evidence(
                examples.confidence, examples.answers, about, cost / worth.good, signal_cost / worth.good
            )
            self._plans[named] = Plan(graph, Posterior(graph.nodes(), evidence, examples.good), evidence)
        for task in self.tasks:
            rows = [row for row, of in enumerate(examples.task) if of == task]
            for rung in rungs:
                self._bands[task, self.rungs[rung]] = Band.around(examples.confidence[rows, rung])

    @property
    def reads_questions(self) -> bool:
        """Whether it looks at ``State.features``."""
        return self._numbers > 0

    def monitors(self) -> dict[tuple[str, str], DriftMonitor]:
        """One for each task with labels and each rung worth asking, on the mean of its confidence: for ``Guarded``."""
        return {key: DriftMonitor(band) for key, band in self._bands.items()}

    def served(self, state: State) -> tuple[int | None, float] | None:
        """The reply to serve now and its chance; None when too little was learned, or the plan never goes there."""
        found = self._found(state)
        if found is None:
            return None
        plan, node, evidence = found
        if not node.asked:
            return None, 0.0
        served = plan.posterior.served(node, evidence)
        return [seen.rung for seen in state.seen].index(int(served.rung[0])), float(served.chance[0])

    def after(self, state: State, step: Try | Probe) -> float:
        """The chance once the step is done, less the price of what would follow it; -inf when it is not in the plan."""
        found = self._found(state)
        if found is None:
            return _NEVER
        plan, node, evidence = found
        kind, rung = ("ask", step.rung) if isinstance(step, Try) else ("probe", state.seen[step.seen].rung)
        steps = [(one.kind, one.rung) for one in plan.graph.steps(node)]
        if (kind, rung) not in steps:
            return _NEVER
        served = plan.posterior.served(node, evidence)
        gains = plan.gains(node, served, evidence)[0]
        return float(served.chance[0] + gains[steps.index((kind, rung))])

    def _found(self, state: State) -> tuple[Plan, Node, Evidence] | None:
        """The plan for this task, where in it the climb is, and what was seen; None where no plan goes."""
        if not self._plans or tuple(rung.name for rung in state.rungs) != self.rungs:
            return None
        named = state.task in self.tasks and (self._prior is None or len(state.features) == self._numbers)
        plan = self._plans[named]
        asked = tuple(sorted(seen.rung for seen in state.seen))
        read = tuple(sorted(seen.rung for seen in state.seen if seen.verdict.confidence is not None))
        known = set(asked) <= set(plan.graph.rungs) and len(asked) <= plan.graph.depth
        if not known or any(not seen.verdict.valid for seen in state.seen) or (plan.graph.free and read != asked):
            return None
        return plan, Node(asked, read), _evidence(state, self._about(state, named=named))

    def _about(self, state: State, *, named: bool) -> Floats:
        """What is known of the question before any reply: nothing where its task has no plan of its own."""
        about = one_of([state.task], self.tasks if named else ())
        if not named or self._prior is None:
            return about
        return np.hstack([about, self._prior.chances(np.array([state.features], np.float64), about)])


def _evidence(state: State, about: Floats) -> Evidence:
    rungs = len(state.rungs)
    confidence, nothing = np.full((1, rungs), 0.5), np.zeros((1, rungs))
    for seen in state.seen:
        signal = seen.verdict.confidence if seen.signal is None else seen.signal
        if signal is not None:
            confidence[0, seen.rung] = signal
    answers = np.array([numbered({seen.rung: seen.answer for seen in state.seen}, rungs)])
    return Evidence(confidence, answers, about, nothing, nothing)
