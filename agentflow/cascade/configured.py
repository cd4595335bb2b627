"""A cascade's table of the configuration as a policy. May import config, policy, routing, signals, rung.

``runtime`` calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agentflow.cascade.policy import Calibrated, Policy
from agentflow.cascade.routing.fixed import FixedOrder, Pinned
from agentflow.cascade.routing.latency import LatencyFirst
from agentflow.cascade.routing.state import Routing, Worth
from agentflow.cascade.routing.utility import Estimator, ExpectedUtility
from agentflow.cascade.rung import ModelRung
from agentflow.cascade.signals import Judge, SelfAgreement, Signal
from agentflow.config import CascadeSettings


def policy_of(
    table: CascadeSettings,
    rung: Callable[[str], ModelRung],
    calibration: Calibrated | None = None,
    estimator: Estimator | None = None,
) -> Policy:
    """The policy that a table asks for.

    Args:
        table: of the configuration.
        rung: finds a model by its name, for the judge.
        calibration: what was learned of the rungs' signals.
        estimator: what was learned of the rungs; without one, expected utility falls back to the fixed order.
    """
    policy = Policy(
        table.accept,
        table.repairs,
        table.min_output,
        routing=_routing(table, estimator),
        signal=_signal(table, rung),
        calibration=calibration,
    )
    return replace(policy, worth=Worth(float(table.good_usd), float(table.joule_usd), float(table.second_usd)))


def _routing(table: CascadeSettings, estimator: Estimator | None) -> Routing | None:
    match table.policy:
        case "utility":
            return ExpectedUtility(estimator, table.floor, FixedOrder(table.accept))
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
