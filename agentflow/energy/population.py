"""Every way a call may have run, weighed at once: what ``gpu.pooled`` says of its hypotheses, a hundred times faster.

A remote model has some 1,400 of them, and a chain asks after every call. The arithmetic is that of
``roofline.decode_step`` and ``gpu.Facility`` on columns, a row for each deployment and batch; tests hold the two to
each other. ``explain`` shows single hypotheses, and computes them one by one. Imports gpu, constants; numpy when asked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agentflow.energy.constants import Tier
from agentflow.energy.facts import Range
from agentflow.energy.gpu import BATCHES, TIME_SPREAD, UNEXPLAINED, GpuProfile, batch_weight, interval, surroundings
from agentflow.energy.roofline import MOST_POWER

if TYPE_CHECKING:
    import numpy as np

    Column = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

Parts = tuple[tuple[float, GpuProfile], ...]


class Population:
    """Deployments that a call may have met, each with its likelihood.

    Args:
        parts: likelihoods, not normalised, and profiles. Every one has the first one's fitted constants.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def joules(
        self,
        tokens: Sequence[float],
        tier: Tier,
        batch: float | None,
        token_s: float | None,
        width: float,
        *,
        apart: bool = True,
    ) -> Range:
        """Joules of one call: the expectation, and the interval around the geometric mean.

        Args:
            tokens: uncached prompt, cached prompt and reply tokens.
            tier: what is known.
            batch: sequences decoded together, when known.
            token_s: seconds per token of the reply, when known.
            width: spreads either side that the interval reaches.
            apart: whether the call's own prefill comes on top of ``token_s``.
        """
        import numpy as np

        rows = self._prior if batch is None else _Rows(self._parts, ((batch, 1.0),))
        weights, low, mean, high = rows.joules(tokens, tier, token_s, apart=apart)
        whole = float(weights.sum())
        logs = np.log(mean)
        centre = float(weights @ logs) / whole
        spread = (float(weights @ (logs - centre) ** 2) / whole) ** 0.5
        return interval(
            float(weights @ np.log(low)) / whole,
            float(weights @ mean) / whole,
            float(weights @ np.log(high)) / whole,
            width,
            spread,
            self._parts[0][1].fitted.floor,
        )

    @functools.cached_property
    def _prior(self) -> _Rows:
        """With the batch not known: every one, by its prior."""
        return _Rows(self._parts, tuple((float(batch), batch_weight(batch)) for batch in BATCHES))


class _Rows:
    """What does not depend on the call: a row for each deployment and batch."""

    def __init__(self, parts: Parts, batches: Sequence[tuple[float, float]]) -> None:
        import numpy as np

        k = parts[0][1].fitted.constants

        def column(figure: Callable[[GpuProfile], float]) -> Column:
            return np.array([float(figure(p)) for _, p in parts for _ in batches])

        def checked(p: GpuProfile) -> float:
            return 1.0 if p.speculation is None else p.speculation.drafted + 1.0

        def drafts(p: GpuProfile) -> float:
            return 0.0 if p.speculation is None else p.speculation.drafted * p.speculation.draft_b * 1e9

        self.weights = np.array([likely * prior for likely, _ in parts for _, prior in batches])
        self.batch = np.array([batch for _ in parts for batch, _ in batches])
        self.accepted = column(lambda p: 1.0 if p.speculation is None else p.speculation.accepted)
        self.checked = column(checked)
        self.drafts = column(drafts)
        weights = [p.shape.weight_bytes(batch * checked(p)) for _, p in parts for batch, _ in batches]
        self.weight_bytes = np.array(weights) + self.drafts * column(lambda p: p.shape.bytes_per_parameter)
        self.kv_bytes = column(lambda p: p.shape.kv_bytes)
        self.full = column(lambda p: p.shape.full_attention)
        self.window = column(lambda p: p.shape.window)
        self.two_active = column(lambda p: 2.0 * p.shape.active)
        self.attention = column(lambda p: p.shape.attention_flop(1.0) / p.shape.attended(1.0))
        gpus = column(lambda p: p.gpus)
        self.gpus = gpus
        self.watts = gpus * column(lambda p: p.chip.tdp_w)
        self.bandwidth = gpus * column(lambda p: p.chip.bytes_per_s) * k.memory_efficiency
        flops = column(lambda p: p.chip.flops(p.shape.compute_bits))
        self.rate = gpus * flops * k.flop_efficiency
        self.byte_j = column(lambda p: p.chip.tdp_w / p.chip.bytes_per_s) * k.byte_power
        self.flop_j = column(lambda p: p.chip.tdp_w) / flops * k.flop_power
        layers = column(lambda p: p.shape.layers)
        self.launch_s = layers * k.s_per_layer * (1.0 + k.slope_per_doubling * np.log2(gpus))
        self.launch_s += self.batch * k.s_per_sequence
        self.busy_power, self.stall_power = k.busy_power, k.stall_power
        # Engines: how many times a current one's overhead, and how likely. Deployments of known engines have one each.
        engines = [p.fitted.overheads(p.engine) for _, p in parts for _ in batches]
        most = max(map(len, engines))
        padded = [(*engine, *((1.0, 0.0),) * (most - len(engine))) for engine in engines]
        self.overhead = np.array([[overhead for overhead, _ in engine] for engine in padded]).T
        self.likely = np.array([[likely for _, likely in engine] for engine in padded]).T
        around = [surroundings(p.scope, p.facility) for _, p in parts for _ in batches]
        self.ends = [
            (np.array([f.pue.low * f.supply.low for f in around]), np.array([f.host_w.low for f in around])),
            (np.array([f.pue.mean * f.supply.mean for f in around]), np.array([f.host_w.mean for f in around])),
            (np.array([f.pue.high * f.supply.high for f in around]), np.array([f.host_w.high for f in around])),
        ]

    def joules(
        self, tokens: Sequence[float], tier: Tier, token_s: float | None, *, apart: bool
    ) -> tuple[Column, Column, Column, Column]:
        """Weights of the hypotheses, not normalised, and the low, mean and high joules of each."""
        import numpy as np

        fresh, cached, output = tokens
        # A call without a reply takes one step.
        output = max(output, 1.0)
        batch = self.batch
        attended = self._attended(fresh + cached + output / 2)
        moved = self.weight_bytes + batch * self.kv_bytes * attended
        decode = batch * (self.checked * (self.two_active + self.attention * attended) + 2.0 * self.drafts)
        prompt = self.two_active + self.attention * self._attended(cached + fresh / 2)
        prefill = batch * (fresh / output) * self.accepted * prompt
        prefill_s = prefill / self.rate
        busy_s = np.maximum(moved / self.bandwidth, decode / self.rate) + prefill_s + self.launch_s
        moving_j = self.byte_j * moved + self.flop_j * (decode + prefill)
        if token_s is None:
            weights = self.weights * self.likely
            taken_s = busy_s + (self.overhead - 1.0) * self.launch_s
        else:
            # The joules are of the measured time, whatever the engine: its overhead says how likely that time was.
            measured = token_s * self.accepted
            weights = self.weights if tier == "batch+latency" else self.weights * self._explains(busy_s, measured)
            taken_s = measured + prefill_s / batch if apart else measured
        idle_s = np.maximum(taken_s - busy_s, 0.0)
        static = self.watts * (self.busy_power * (taken_s - idle_s) + self.stall_power * idle_s)
        joules = np.minimum(MOST_POWER * self.watts * taken_s, static + moving_j)
        shared = output / (batch * self.accepted)
        boards, gpu_s = joules * shared, self.gpus * taken_s * shared
        low, mean, high = ((factor * (boards + host_w * gpu_s)).ravel() for factor, host_w in self.ends)
        return weights.ravel(), low, mean, high

    def _attended(self, context: float) -> Column:
        import numpy as np

        return self.full * context + (1.0 - self.full) * np.minimum(context, self.window)

    def _explains(self, busy_s: Column, measured: Column) -> Column:
        """How likely the measured time is, summed over the engines."""
        import numpy as np

        modelled = busy_s + (self.overhead - 1.0) * self.launch_s
        off = np.log(modelled / measured) / TIME_SPREAD
        return (self.likely * (UNEXPLAINED + np.exp(-0.5 * off * off))).sum(axis=0)
