"""A cascade's table of the configuration as a policy. May import config, policy, routing, signals, rung.

``runtime`` calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from agentflow.cascade.outcomes import Outcome
from agentflow.cascade.outlook import nominal
from agentflow.cascade.policy import Calibrated, Policy
from agentflow.cascade.routing.drift import Guarded
from agentflow.cascade.routing.examples import Examples
from agentflow.cascade.routing.fixed import FixedOrder, Pinned
from agentflow.cascade.routing.latency import LatencyFirst
from agentflow.cascade.routing.learned import LEAST_LABELS, LearnedEstimator, Prices
from agentflow.cascade.routing.router import QueryRouter, Skipping
from agentflow.cascade.routing.state import Routing, Worth
from agentflow.cascade.routing.utility import ExpectedUtility
from agentflow.cascade.rung import ModelRung, Rung
from agentflow.cascade.signals import Judge, SelfAgreement, Signal
from agentflow.config import CascadeSettings


def policy_of(
    table: CascadeSettings,
    rung: Callable[[str], ModelRung],
    calibration: Calibrated | None = None,
    estimator: LearnedEstimator | None = None,
    router: QueryRouter | None = None,
) -> Policy:
    """The policy that a table asks for.

    Args:
        table: of the configuration.
        rung: finds a model by its name, for the judge.
        calibration: what was learned of the rungs' signals.
        estimator: what was learned of the rungs; without one, expected utility falls back to the fixed order. When live
            signals leave the band that it was learned in, the fixed order decides again.
        router: guesses which rungs to skip.
    """
    policy = Policy(
        table.accept,
        table.repairs,
        table.min_output,
        routing=_skipping(table, _routing(table, estimator), router),
        signal=_signal(table, rung),
        calibration=calibration,
    )
    return replace(policy, worth=worth_of(table))


def worth_of(table: CascadeSettings) -> Worth:
    """What a good reply, a joule and a second are worth to whoever wrote the table."""
    return Worth(float(table.good_usd), float(table.joule_usd), float(table.second_usd))


def estimator_of(table: CascadeSettings, rungs: Sequence[Rung], outcomes: Iterable[Outcome]) -> LearnedEstimator | None:
    """What the outcomes teach of these rungs; None where the table asks for nothing learned."""
    if table.policy != "utility":
        return None
    examples = Examples.gather(outcomes, [rung.name for rung in rungs])
    prices = Prices(tuple(nominal(rung) for rung in rungs))
    return LearnedEstimator(examples, prices, worth_of(table))


def router_of(table: CascadeSettings, rungs: Sequence[Rung], outcomes: Iterable[Outcome]) -> QueryRouter | None:
    """A query router, learned from the outcomes that tell of every rung but the last; None where there are too few."""
    if table.router == "off":
        return None
    names = [rung.name for rung in rungs[:-1]]
    known: list[tuple[tuple[float, ...], list[bool]]] = []
    for outcome in outcomes:
        good = {one.rung: outcome.good(one) for one in outcome.tried}
        labels = [good.get(name) for name in names]
        if outcome.features and None not in labels:
            known.append((outcome.features, [bool(label) for label in labels]))
    if len(known) < LEAST_LABELS:
        return None
    features = np.array([row for row, _ in known], np.float64)
    passed = np.array([labels for _, labels in known], np.float64)
    return QueryRouter(features, {name: passed[:, place] for place, name in enumerate(names)}, table.router)


def _skipping(table: CascadeSettings, routing: Routing | None, router: QueryRouter | None) -> Routing | None:
    return routing if router is None else Skipping(routing or FixedOrder(table.accept), router)


def _routing(table: CascadeSettings, estimator: LearnedEstimator | None) -> Routing | None:
    fixed = FixedOrder(table.accept)
    match table.policy:
        case "utility":
            learned = ExpectedUtility(estimator, table.floor, fixed)
            return learned if estimator is None else Guarded(learned, estimator.monitors(), fixed)
        case "latency":
            return LatencyFirst(table.accept, table.abreast)
        case "pinned":
            return Pinned(table.pinned or table.rungs[-1])
        case "fixed":
            return None


def _signal(table: CascadeSettings, rung: Callable[[str], ModelRung]) -> Signal | None:
    if table.judge is not None:
        return Judge(rung(table.judge))
    return None if table.samples is None else SelfAgreement(table.samples)
