"""Fits the ten constants of agentflow's energy model to measured runs. Needs numpy and scipy.

The formula is the one of agentflow.energy.roofline, for many rows at once (a test holds the two together). Energy and
time are fitted jointly, every model family weighs the same, errors are logarithmic and outliers damped, and each
constant is drawn weakly towards where it is expected, so that those that the runs do not settle stay sensible. Runs of
current engines settle eight constants; those of old ones the other two: how much longer they took, and what a board
draws waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares  # pyright: ignore[reportMissingImports]  # of the extra bench

from agentflow.energy.roofline import MOST_POWER, Constants
from benchmarks.energy_rows import Row

Array = np.ndarray[Any, np.dtype[np.float64]]

# Where each constant is expected, and the bounds it must keep.
EXPECTED = Constants(0.8, 0.6, 50e-6, 0.5, 80e-6, 0.3, 1.0, 0.5, 0.25, 4.0)
_BOUNDS: dict[str, tuple[float, float]] = {
    "memory_efficiency": (0.3, 0.95), "flop_efficiency": (0.3, 0.95), "s_per_layer": (1e-6, 400e-6),
    "slope_per_doubling": (0.01, 3.0), "s_per_sequence": (0.1e-6, 500e-6), "byte_power": (0.001, 2.0),
    "flop_power": (0.02, 4.0), "busy_power": (0.05, 0.9), "stall_power": (0.03, 0.6), "old_engine": (1.0, 12.0),
}  # fmt: skip
_OF_OLD = ("stall_power", "old_engine")
_OF_CURRENT = tuple(name for name in _BOUNDS if name not in _OF_OLD)
# Weights of the three residuals of a run, and of the pull towards what is expected (spread .5 of the logarithm).
_TIME_WEIGHT, _POWER_WEIGHT, _PULL = 0.5, 0.5, 0.2 / 0.5


class Columns:
    """Rows as arrays, and the step of each under some constants."""

    def __init__(self, rows: Sequence[Row]) -> None:
        def column(read: Callable[[Row], float]) -> Array:
            return np.array([read(row) for row in rows], dtype=np.float64)

        self.joules, self.step_s = column(lambda r: r.joules), column(lambda r: r.step_s)
        self.batch, self.gpus = column(lambda r: r.batch), column(lambda r: float(r.gpus))
        self.tdp, self.bandwidth = column(lambda r: r.chip.tdp_w), column(lambda r: r.chip.bytes_per_s)
        self.flops = column(lambda r: r.chip.flops(r.shape.compute_bits))
        self.layers, self.old = column(lambda r: float(r.shape.layers)), np.array([not r.current for r in rows])
        self.bytes = column(lambda r: r.shape.weight_bytes(r.batch) + r.batch * r.shape.kv_read(_context(r)))
        self.decode = column(lambda r: r.batch * (2 * r.shape.active + r.shape.attention_flop(_context(r))))
        self.prefill = column(_prefill)
        counts = Counter(row.family for row in rows)
        weights = column(lambda r: 1.0 / counts[r.family])
        self.weight = np.sqrt(weights / weights.mean()) if rows else weights

    def predict(self, k: Constants, *, measured: bool) -> tuple[Array, Array]:
        """Joules per token, over modelled or measured seconds; and the modelled seconds of a step."""
        rate = self.gpus * self.flops * k.flop_efficiency
        memory = self.bytes / (self.gpus * self.bandwidth * k.memory_efficiency)
        launch = self.layers * k.s_per_layer * (1 + k.slope_per_doubling * np.log2(self.gpus))
        overhead = launch + self.batch * k.s_per_sequence
        busy = np.maximum(memory, self.decode / rate) + self.prefill / rate + overhead
        seconds = busy + np.where(self.old, k.old_engine - 1.0, 0.0) * overhead
        taken = self.step_s if measured else seconds
        watts = self.gpus * self.tdp
        static = watts * (k.busy_power * np.minimum(busy, taken) + k.stall_power * np.maximum(taken - busy, 0.0))
        moved = k.byte_power * self.bytes / self.bandwidth + k.flop_power * (self.decode + self.prefill) / self.flops
        return np.minimum(MOST_POWER * watts * taken, static + self.tdp * moved) / self.batch, seconds


def fit(rows: Sequence[Row]) -> Constants:
    """The constants that describe some rows best; those that the rows say nothing of stay as expected."""
    current, old = [r for r in rows if r.current], [r for r in rows if not r.current]
    if not current:
        # Runs of old engines alone: the overhead of their own engine is the only one they know.
        return _fit([replace(r, engine="vllm-0.6") for r in old], EXPECTED, _OF_CURRENT)
    constants = _fit(current, EXPECTED, _OF_CURRENT)
    return _fit(old, constants, _OF_OLD) if old else constants


def _fit(rows: Sequence[Row], start: Constants, names: Sequence[str]) -> Constants:
    columns = Columns(rows)
    centre = np.log([asdict(start)[name] for name in names])
    bounds = np.log(np.array([_BOUNDS[name] for name in names]).T)
    joules, seconds = np.log(columns.joules), np.log(columns.step_s)

    def at(x: Array) -> Constants:
        return replace(start, **dict(zip(names, map(float, np.exp(x)), strict=True)))

    def residuals(x: Array) -> Array:
        modelled, step_s = columns.predict(at(x), measured=False)
        timed, _ = columns.predict(at(x), measured=True)
        w = columns.weight
        return np.concatenate([
            w * (np.log(modelled) - joules), _TIME_WEIGHT * w * (np.log(step_s) - seconds),
            _POWER_WEIGHT * w * (np.log(timed) - joules), _PULL * (x - centre),
        ])  # fmt: skip

    found = least_squares(residuals, centre, bounds=(bounds[0], bounds[1]), loss="soft_l1", f_scale=0.1)
    return at(found.x)


def _context(row: Row) -> float:
    return row.input_tokens + row.output_tokens / 2


def _prefill(row: Row) -> float:
    prompt = 2 * row.shape.active + row.shape.attention_flop(row.input_tokens / 2)
    return row.batch * row.input_tokens * prompt / row.output_tokens
