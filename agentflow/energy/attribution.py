"""Sharing one device's measured energy among the calls that used it together.

A counter knows the whole board, a finance person asks for one call. The shares come from what each call did in each
step; the amount comes from the counter. In integer microjoules: what the calls get and what was idle add up to what
was measured, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from agentflow.energy.interval import Energy


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Joules of a device's step by what it does; the model's constants, of which the ratios matter here.

    Args:
        static_w: watts drawn while a step runs, whatever it does.
        j_per_byte: of memory traffic.
        j_per_flop: of arithmetic.
    """

    static_w: float
    j_per_byte: float
    j_per_flop: float


@dataclass(frozen=True, slots=True)
class Work:
    """What one call did in one step.

    Args:
        call: the name of the call.
        kv_bytes: of its own keys and values that were read.
        flop: its own arithmetic, decode and prefill together.
    """

    call: str
    kv_bytes: float = 0.0
    flop: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the device: how long, what all its calls share, and what each did.

    Args:
        seconds: how long it took.
        weight_bytes: of weights that were read, for all of them together.
        work: one entry for each call that took part. A cancelled call is in the steps up to its end.
    """

    seconds: float
    weight_bytes: float
    work: tuple[Work, ...]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Measured microjoules, shared out: ``sum(calls) + idle`` is the measured figure exactly."""

    calls: Mapping[str, int] = field(default_factory=dict[str, int])
    idle: int = 0

    @property
    def measured(self) -> int:
        """What the counter said."""
        return sum(self.calls.values()) + self.idle

    def energy(self, call: str, measured: Energy) -> Energy:
        """The joules of one call, from those of the whole window.

        A call that had the device to itself is as measured as the window; a share of several is modelled, since the
        model made it. How far the shares may be off is not known and not in the interval; ``assumed`` says so.

        Args:
            call: one of ``calls``.
            measured: the window's energy, as its counter's ``Window.energy()`` gives it.
        """
        part = measured.scaled(self.calls[call] / self.measured if self.measured else 0.0)
        if len(self.calls) == 1:
            return part
        assumed = f"a share of {len(self.calls)} calls by the model; the shares' own error is not in the interval"
        return replace(part, provenance="modelled", assumed=(*part.assumed, assumed))


def step_weights(steps: Iterable[Step], costs: StepCosts) -> dict[str, float]:
    """Modelled joules of each call over some steps.

    In every step a call pays for its own bytes and FLOP; the weights' bytes and the static power are shared equally by
    the calls in it.

    Args:
        steps: of the window, in any order.
        costs: of the device.
    """
    weights: dict[str, float] = {}
    for step in steps:
        if not step.work:
            continue
        shared = (_sound(step.weight_bytes) * costs.j_per_byte + costs.static_w * _sound(step.seconds)) / len(step.work)
        for work in step.work:
            own = _sound(work.kv_bytes) * costs.j_per_byte + _sound(work.flop) * costs.j_per_flop
            weights[work.call] = weights.get(work.call, 0.0) + shared + own
    return weights


def token_weights(calls: Mapping[str, tuple[int, float]]) -> dict[str, float]:
    """Shares when there is no log of steps: output tokens times the seconds a step took.

    Args:
        calls: for each call, its output tokens and its seconds per output token. A call cancelled in its prompt has
            no tokens; it is counted as having made one.
    """
    return {call: max(tokens, 1) * _sound(seconds) for call, (tokens, seconds) in calls.items()}


def attribute(measured_uj: int, weights: Mapping[str, float], *, idle_uj: int = 0) -> Attribution:
    """Share out what a counter measured.

    Idle energy goes to an account of its own, never to a call. What is left is split by the weights; the microjoules
    that do not divide go to the largest remainders, and among equal ones to the call named first.

    Args:
        measured_uj: microjoules of the window, at least 0.
        weights: of each call, in any unit: modelled joules, say. Negative ones and those that are not finite count
            as 0; when all are 0, the calls share equally.
        idle_uj: microjoules while no call was running; cut to what was measured. Without any call all of it is idle.

    Raises:
        ValueError: a figure of microjoules is negative.

    Example:
        >>> attribute(10, {"a": 1.0, "b": 1.0, "c": 1.0}, idle_uj=0).calls
        {'a': 4, 'b': 3, 'c': 3}
    """
    if measured_uj < 0 or idle_uj < 0:
        raise ValueError(f"microjoules must be at least 0, got {measured_uj} measured and {idle_uj} idle")
    if not weights:
        return Attribution({}, measured_uj)
    idle = min(idle_uj, measured_uj)
    shares = _split(measured_uj - idle, [_sound(weight) for weight in weights.values()])
    return Attribution(dict(zip(weights, shares, strict=True)), idle)


def _split(amount: int, weights: Sequence[float]) -> list[int]:
    """Integers in proportion to the weights, with exactly this sum (largest remainder)."""
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact)
    if whole == 0:
        exact, whole = [Fraction(1)] * len(weights), Fraction(len(weights))
    quotas = [amount * weight / whole for weight in exact]
    shares = [math.floor(quota) for quota in quotas]
    left = amount - sum(shares)
    by_remainder = sorted(range(len(shares)), key=lambda place: (shares[place] - quotas[place], place))
    for place in by_remainder[:left]:
        shares[place] += 1
    return shares


def _sound(figure: float) -> float:
    return figure if math.isfinite(figure) and figure > 0 else 0.0
