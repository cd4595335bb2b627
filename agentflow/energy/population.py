"""Every way a call may have run, weighed at once: what ``gpu.pooled`` says of its hypotheses, a hundred times faster.

A remote model has some 1,400 of them, and a chain asks after every call. The arithmetic is that of
``roofline.decode_step`` and ``gpu.Facility`` on columns, a row for each deployment and batch; tests hold the two to
each other. ``explain`` shows single hypotheses, and computes them one by one. Imports gpu, constants; numpy when asked.
"""

from __future__ import annotations

import functools
import math
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
        weights, ends = rows.joules(tokens, tier, token_s, apart=apart)
        weights = weights / weights.sum()
        logs = np.log(ends)
        low, centre, high = (logs @ weights).tolist()
        spread = math.sqrt(float((logs[1] - centre) ** 2 @ weights))
        return interval(low, float(ends[1] @ weights), high, width, spread, self._parts[0][1].fitted.floor)

    @functools.cached_property
    def _prior(self) -> _Rows:
        """With the batch not known: every one, by its prior."""
        return _Rows(self._parts, tuple((float(batch), batch_weight(batch)) for batch in BATCHES))


class _Rows:
    """What does not depend on the call: a row for each deployment and batch, or for each engine of each of these.

    Bytes, FLOP and seconds of a step are linear in what its tokens attend to and in its prompt's share: a pair of
    columns is what they are without those, and what they are more for each.
    """

    def __init__(self, parts: Parts, batches: Sequence[tuple[float, float]]) -> None:
        import numpy as np

        k = parts[0][1].fitted.constants

        def column(figure: Callable[[GpuProfile], float]) -> Column:
            return np.array([float(figure(p)) for _, p in parts for _ in batches])

        self.weights = np.array([likely * prior for likely, _ in parts for _, prior in batches])
        self.batch = batch = np.array([batch for _ in parts for batch, _ in batches])
        self.accepted = column(lambda p: 1.0 if p.speculation is None else p.speculation.accepted)
        checked = column(_checked)
        drafts = column(lambda p: 0.0 if p.speculation is None else p.speculation.drafted * p.speculation.draft_b * 1e9)
        gpus, tdp_w = column(lambda p: p.gpus), column(lambda p: p.chip.tdp_w)
        flops, bandwidth = column(lambda p: p.chip.flops(p.shape.compute_bits)), column(lambda p: p.chip.bytes_per_s)
        self.full, self.window = column(lambda p: p.shape.full_attention), column(lambda p: p.shape.window)
        self.windowed = bool((self.full < 1.0).any())

        weights = np.array([p.shape.weight_bytes(b * _checked(p)) for _, p in parts for b, _ in batches])
        moved = (
            weights + drafts * column(lambda p: p.shape.bytes_per_parameter),
            batch * column(lambda p: p.shape.kv_bytes),
        )
        token = column(lambda p: 2.0 * p.shape.active), column(_attention_flop)
        decode = batch * (checked * token[0] + 2.0 * drafts), batch * checked * token[1]
        prefill = batch * self.accepted * token[0], batch * self.accepted * token[1]
        byte_s, flop_s = 1.0 / (gpus * bandwidth * k.memory_efficiency), 1.0 / (gpus * flops * k.flop_efficiency)
        byte_j, flop_j = tdp_w * k.byte_power / bandwidth, tdp_w * k.flop_power / flops
        self.memory_s = moved[0] * byte_s, moved[1] * byte_s
        self.decode_s = decode[0] * flop_s, decode[1] * flop_s
        self.prefill_s = prefill[0] * flop_s, prefill[1] * flop_s
        self.step_j = moved[0] * byte_j + decode[0] * flop_j, moved[1] * byte_j + decode[1] * flop_j
        self.prefill_j = prefill[0] * flop_j, prefill[1] * flop_j
        layers_s = column(lambda p: p.shape.layers) * k.s_per_layer * (1.0 + k.slope_per_doubling * np.log2(gpus))
        self.launch_s = layers_s + batch * k.s_per_sequence

        self.most_w = MOST_POWER * gpus * tdp_w
        self.busy_w, self.stall_w = k.busy_power * gpus * tdp_w, k.stall_power * gpus * tdp_w
        # How many times a current engine's overhead each has, and how likely; one whose engine is known has one.
        engines = [p.fitted.overheads(p.engine) for _, p in parts for _ in batches]
        most = max(map(len, engines))
        padded = np.array([(*engine, *((1.0, 0.0),) * (most - len(engine))) for engine in engines]).T
        self.stalled_s, self.likely = (padded[0] - 1.0) * self.launch_s, padded[1]
        # From board joules and seconds of a step to the facility's low, mean and high joules of a token.
        around = [surroundings(p.scope, p.facility) for _, p in parts for _ in batches]
        shared = 1.0 / (batch * self.accepted)
        factors = np.array(
            [[f.pue.low * f.supply.low, f.pue.mean * f.supply.mean, f.pue.high * f.supply.high] for f in around]
        )
        hosts_w = np.array([[f.host_w.low, f.host_w.mean, f.host_w.high] for f in around])
        self.of_boards = factors.T * shared
        self.of_seconds = hosts_w.T * gpus * self.of_boards

    def joules(
        self, tokens: Sequence[float], tier: Tier, token_s: float | None, *, apart: bool
    ) -> tuple[Column, Column]:
        """Weights of the hypotheses, not normalised; and their low, mean and high joules, as rows."""
        import numpy as np

        fresh, cached, output = tokens
        # A call without a reply takes one step.
        output = max(output, 1.0)
        attended, steps = self._attended(fresh + cached + output / 2), fresh / output
        of_prompt = self._attended(cached + fresh / 2) * steps
        prefill_s = self.prefill_s[0] * steps + self.prefill_s[1] * of_prompt
        memory_s = self.memory_s[0] + self.memory_s[1] * attended
        decode_s = self.decode_s[0] + self.decode_s[1] * attended
        busy_s = np.maximum(memory_s, decode_s) + prefill_s + self.launch_s
        moving_j = self.step_j[0] + self.step_j[1] * attended
        moving_j += self.prefill_j[0] * steps + self.prefill_j[1] * of_prompt
        if token_s is None:
            weights, taken_s = self.weights * self.likely, busy_s + self.stalled_s
        else:
            # The joules are of the measured time, whatever the engine: its overhead says how likely that time was.
            measured = token_s * self.accepted
            weights = self.weights if tier == "batch+latency" else self.weights * self._explains(busy_s, measured)
            taken_s = measured + prefill_s / self.batch if apart else measured
        idle_s = np.maximum(taken_s - busy_s, 0.0)
        boards = self.busy_w * (taken_s - idle_s) + self.stall_w * idle_s + moving_j
        boards = np.minimum(self.most_w * taken_s, boards)
        if boards.ndim > 1:
            ends = [(b * boards + s * taken_s).ravel() for b, s in zip(self.of_boards, self.of_seconds, strict=True)]
            return weights.ravel(), np.array(ends) * output
        return weights, (self.of_boards * boards + self.of_seconds * taken_s) * output

    def _attended(self, context: float) -> Column | float:
        import numpy as np

        return self.full * context + (1.0 - self.full) * np.minimum(context, self.window) if self.windowed else context

    def _explains(self, busy_s: Column, measured: Column) -> Column:
        """How likely the measured time is, summed over the engines."""
        import numpy as np

        off = np.log((busy_s + self.stalled_s) / measured)
        return (self.likely * (UNEXPLAINED + np.exp(off * off * (-0.5 / TIME_SPREAD**2)))).sum(axis=0)


def _checked(profile: GpuProfile) -> float:
    """Tokens of a sequence that go through the model in one step."""
    return 1.0 if profile.speculation is None else profile.speculation.drafted + 1.0


def _attention_flop(profile: GpuProfile) -> float:
    """FLOP of a token for each token that it attends to."""
    return profile.shape.attention_flop(1.0) / profile.shape.attended(1.0)
