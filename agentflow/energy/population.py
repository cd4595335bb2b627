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
        weights, ends = rows.token_joules(tokens, tier, token_s, apart=apart)
        whole, output = float(weights.sum()), max(tokens[2], 1.0)
        logs = np.log(ends)
        low, centre, high = logs.dot(weights).tolist()
        off = logs[1] - centre / whole
        off *= off
        spread, mean = math.sqrt(float(off.dot(weights)) / whole), float(ends[1].dot(weights)) / whole
        floor = self._parts[0][1].fitted.floor
        return interval(low / whole, mean, high / whole, width, spread, floor) * output

    @functools.cached_property
    def _prior(self) -> _Rows:
        """With the batch not known: every one, by its prior."""
        return _Rows(self._parts, tuple((float(batch), batch_weight(batch)) for batch in BATCHES))


class _Rows:
    """What does not depend on the call: a row for each deployment and batch, or for each engine of each of these.

    Seconds and joules are of one token of the reply. They are linear in four figures of the call: one, the tokens it
    attends to, the part of its prompt that comes on each token, and that times what the prompt attends to.
    """

    def __init__(self, parts: Parts, batches: Sequence[tuple[float, float]]) -> None:
        import numpy as np

        k = parts[0][1].fitted.constants

        def column(figure: Callable[[GpuProfile], float]) -> Column:
            return np.array([float(figure(p)) for _, p in parts for _ in batches])

        batch = np.array([batch for _ in parts for batch, _ in batches])
        accepted = column(lambda p: 1.0 if p.speculation is None else p.speculation.accepted)
        checked = column(_checked)
        drafts = column(lambda p: 0.0 if p.speculation is None else p.speculation.drafted * p.speculation.draft_b * 1e9)
        gpus, tdp_w = column(lambda p: p.gpus), column(lambda p: p.chip.tdp_w)
        flops, bandwidth = column(lambda p: p.chip.flops(p.shape.compute_bits)), column(lambda p: p.chip.bytes_per_s)
        flop, attention_flop = column(lambda p: 2.0 * p.shape.active), column(_attention_flop)
        weights = np.array([p.shape.weight_bytes(b * _checked(p)) for _, p in parts for b, _ in batches])
        weights += drafts * column(lambda p: p.shape.bytes_per_parameter)
        kv = batch * column(lambda p: p.shape.kv_bytes)
        layers_s = column(lambda p: p.shape.layers) * k.s_per_layer * (1.0 + k.slope_per_doubling * np.log2(gpus))
        launch_s = layers_s + batch * k.s_per_sequence
        nothing = np.zeros_like(batch)

        # Bytes and FLOP, each for the call's four figures.
        moved = np.array([weights, kv, nothing, nothing]) / accepted
        decode = np.array([batch * (checked * flop + 2.0 * drafts), batch * checked * attention_flop, nothing, nothing])
        decode /= accepted
        prefill = np.array([nothing, nothing, batch * flop, batch * attention_flop])
        launch = np.array([launch_s, nothing, nothing, nothing]) / accepted
        memory_s = moved / (gpus * bandwidth * k.memory_efficiency)
        decode_s, prefill_s = (work / (gpus * flops * k.flop_efficiency) for work in (decode, prefill))
        moving_j = moved * (tdp_w * k.byte_power / bandwidth) + (decode + prefill) * (tdp_w * k.flop_power / flops)
        # Busy by memory or by FLOP, a sequence's own prefill, joules of bytes and FLOP.
        busy_s = memory_s + prefill_s + launch, decode_s + prefill_s + launch
        self.linear = np.stack([*busy_s, prefill_s / batch, moving_j], axis=1)
        self.flat = self.linear.reshape(4, -1)

        self.most_w, self.busy_w = MOST_POWER * gpus * tdp_w, k.busy_power * gpus * tdp_w
        self.idle_w = (k.stall_power - k.busy_power) * gpus * tdp_w
        # How many times a current engine's overhead each has, and how likely; one whose engine is known has one.
        engines = [p.fitted.overheads(p.engine) for _, p in parts for _ in batches]
        most = max(map(len, engines))
        padded = np.array([(*engine, *((1.0, 0.0),) * (most - len(engine))) for engine in engines]).T
        self.stalled_s = (padded[0] - 1.0) * launch[0]
        self.weights = np.array([likely * prior for likely, _ in parts for _, prior in batches])
        self.engine_weights = self.weights * padded[1]
        # From a batch's board joules and seconds to the facility's low, mean and high joules of one sequence.
        around = [surroundings(p.scope, p.facility) for _, p in parts for _ in batches]
        pue, supply, host_w = (
            np.array([(r.low, r.mean, r.high) for r in ranges]).T
            for ranges in ([f.pue for f in around], [f.supply for f in around], [f.host_w for f in around])
        )
        self.of_boards = pue * supply / batch
        self.of_seconds = host_w * gpus * self.of_boards
        self.full, self.window = column(lambda p: p.shape.full_attention), column(lambda p: p.shape.window)
        self.windowed = bool((self.full < 1.0).any())

    def token_joules(
        self, tokens: Sequence[float], tier: Tier, token_s: float | None, *, apart: bool
    ) -> tuple[Column, Column]:
        """Weights of the hypotheses, not normalised; and low, mean and high joules of one token of the reply."""
        import numpy as np

        by_memory_s, by_flop_s, own_prefill_s, moving_j = self._linear(*tokens)
        busy_s = np.maximum(by_memory_s, by_flop_s)
        if token_s is None:
            weights, taken_s = self.engine_weights, busy_s + self.stalled_s
        else:
            # The joules are of the measured time, whatever the engine: its overhead says how likely that time was.
            weights = self.weights if tier == "batch+latency" else self._explaining(busy_s, token_s)
            taken_s = own_prefill_s + token_s if apart else np.full_like(busy_s, token_s)
        idle_s = np.maximum(taken_s - busy_s, 0.0)
        boards = self.busy_w * taken_s
        boards += self.idle_w * idle_s
        boards += moving_j
        boards = np.minimum(boards, self.most_w * taken_s)
        if boards.ndim == 1:
            ends = self.of_boards * boards
            ends += self.of_seconds * taken_s
            return weights, ends
        ends = [(b * boards + s * taken_s).ravel() for b, s in zip(self.of_boards, self.of_seconds, strict=True)]
        return weights.ravel(), np.array(ends)

    def _linear(self, fresh: float, cached: float, output: float) -> Column:
        """The four columns of ``linear`` for this call, as rows."""
        import numpy as np

        # A call without a reply takes one step.
        output = max(output, 1.0)
        context, prompt, share = fresh + cached + output / 2, cached + fresh / 2, fresh / output
        if not self.windowed:
            return (np.array([1.0, context, share, share * prompt]).dot(self.flat)).reshape(4, -1)
        attended = [
            self.full * length + (1.0 - self.full) * np.minimum(length, self.window) for length in (context, prompt)
        ]
        one = np.ones_like(self.full)
        return np.einsum("fr,fqr->qr", np.array([one, attended[0], share * one, share * attended[1]]), self.linear)

    def _explaining(self, busy_s: Column, token_s: float) -> Column:
        """The weights by how well each explains the measured time, summed over the engines."""
        import numpy as np

        off = np.log(busy_s + self.stalled_s)
        off -= math.log(token_s)
        off *= off
        off *= -0.5 / TIME_SPREAD**2
        np.exp(off, out=off)
        off += UNEXPLAINED
        off *= self.engine_weights
        return off.sum(axis=0)


def _checked(profile: GpuProfile) -> float:
    """Tokens of a sequence that go through the model in one step."""
    return 1.0 if profile.speculation is None else profile.speculation.drafted + 1.0


def _attention_flop(profile: GpuProfile) -> float:
    """FLOP of a token for each token that it attends to."""
    return profile.shape.attention_flop(1.0) / profile.shape.attended(1.0)
