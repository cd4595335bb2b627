"""An estimator learned from outcomes: what ``ExpectedUtility`` asks at each step of a live call.

One posterior and plan for each signal, and for tasks that have labels of their own or not. Imports plan and examples.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from agentflow.cascade.routing.drift import Band
from agentflow.cascade.routing.evidence import Evidence, Node, one_of, rungs_worth_asking
from agentflow.cascade.routing.examples import Examples, numbered
from agentflow.cascade.routing.plan import Graph, Plan
from agentflow.cascade.routing.posterior import Posterior
from agentflow.cascade.routing.regression import Floats
from agentflow.cascade.routing.state import Probe, State, Try, Worth

# With fewer labels than this nothing is learned of a signal, and a task has no effect of its own.
LEAST_LABELS = 100
# No step of the plan leads here: never worth its price.
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class _Known:
    tasks: tuple[str, ...]
    plan: Plan


class LearnedEstimator:
    """Chances and gains, from labelled questions that all rungs have answered.

    Args:
        examples: at least ``LEAST_LABELS`` for a signal to be known.
        worth: of a good reply, a joule and a second: what plans are made for. States should have the same.
        depth: rungs asked in one call at most.

    Example:
        >>> # Policy(routing=ExpectedUtility(LearnedEstimator(examples, worth)))
    """

    def __init__(self, examples: Examples, worth: Worth, depth: int = 2) -> None:
        self.rungs = examples.rungs
        self._known: dict[tuple[str, bool], _Known] = {}
        self.bands: dict[tuple[str, str], Band] = {}
        if len(examples) < LEAST_LABELS:
            return
        rungs = rungs_worth_asking(examples.good, examples.usd + worth.joule * examples.joules)
        for signal in sorted(set(examples.signal)):
            these = examples.of([row for row, of in enumerate(examples.signal) if of == signal])
            if len(these) < LEAST_LABELS:
                continue
            tasks = tuple(sorted(t for t, n in Counter(these.task).items() if n >= LEAST_LABELS))
            for task in tasks:
                rows = [row for row, of in enumerate(these.task) if of == task]
                for rung in rungs:
                    self.bands[task, self.rungs[rung]] = Band.around(these.confidence[rows, rung])
            for known in (tasks, ()):
                self._known[signal, bool(known)] = _Known(known, _plan(these, rungs, known, worth, depth))

    def served(self, state: State) -> tuple[int | None, float] | None:
        """The reply to serve now and its chance; None when this signal or what was seen is unknown to the plan."""
        known = self._of(state)
        node = None if known is None else _node(state, known.plan)
        if known is None or node is None:
            return None
        served = known.plan.posterior.served(node, _evidence(state, known.tasks))
        if not node.asked:
            return None, 0.0
        places = [seen.rung for seen in state.seen]
        return places.index(int(served.rung[0])), float(served.chance[0])

    def after(self, state: State, step: Try | Probe) -> float:
        """The chance once the step is done, less the price of what would follow it; -inf when it is not in the plan."""
        known = self._of(state)
        node = None if known is None else _node(state, known.plan)
        if known is None or node is None:
            return _NEVER
        rung = step.rung if isinstance(step, Try) else state.seen[step.seen].rung
        kind = "ask" if isinstance(step, Try) else "probe"
        steps = known.plan.graph.steps(node)
        at = next((i for i, one in enumerate(steps) if (one.kind, one.rung) == (kind, rung)), None)
        if at is None:
            return _NEVER
        evidence = _evidence(state, known.tasks)
        served = known.plan.posterior.served(node, evidence)
        return float(served.chance[0] + known.plan.gains(node, served, evidence)[0, at])

    def _of(self, state: State) -> _Known | None:
        if tuple(rung.name for rung in state.rungs) != self.rungs:
            return None
        known = self._known.get((state.signal, True))
        return known if known is not None and state.task in known.tasks else self._known.get((state.signal, False))


def _plan(examples: Examples, rungs: tuple[int, ...], tasks: tuple[str, ...], worth: Worth, depth: int) -> Plan:
    graph = Graph(rungs, free=not examples.signal_usd.any(), depth=depth)
    price = examples.usd + worth.joule * examples.joules + worth.second * examples.seconds
    evidence = Evidence(
        examples.confidence,
        examples.answers,
        one_of(examples.task, tasks),
        _expected(price) / worth.good,
        _expected(examples.signal_usd) / worth.good,
    )
    return Plan(graph, Posterior(graph.nodes(), evidence, examples.good), evidence)


def _expected(price: Floats) -> Floats:
    """What an attempt is expected to cost before it is made: the mean of the rung's."""
    return np.broadcast_to(price.mean(axis=0), price.shape)


def _node(state: State, plan: Plan) -> Node | None:
    """Where the climb is; None where the plan never goes."""
    if any(not seen.verdict.valid for seen in state.seen):
        return None
    asked = tuple(sorted(seen.rung for seen in state.seen))
    read = tuple(sorted(seen.rung for seen in state.seen if seen.verdict.confidence is not None))
    lost = set(asked) - set(plan.graph.rungs)
    silent = plan.graph.free and read != asked
    if lost or silent or len(asked) > plan.graph.depth:
        return None
    return Node(asked, read)


def _evidence(state: State, tasks: tuple[str, ...]) -> Evidence:
    rungs = len(state.rungs)
    confidence = np.full((1, rungs), 0.5)
    for seen in state.seen:
        if seen.verdict.confidence is not None:
            confidence[0, seen.rung] = seen.verdict.confidence
    answers = numbered({seen.rung: seen.answer for seen in state.seen}, rungs)
    nothing = np.zeros((1, rungs))
    return Evidence(confidence, np.array([answers]), one_of([state.task], tasks), nothing, nothing)
