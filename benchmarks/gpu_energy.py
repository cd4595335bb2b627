"""A GPU's own counter against the estimate: ``python -m benchmarks.gpu_energy [--json] [--seconds 5]``

Decode steps of random-weight transformers (the values of weights do not change energy) in bf16, alone and in batches,
each for a window of ``--seconds`` on the NVML total-energy counter, which is refreshed ten times a second. Idle watts
are measured first and printed apart: they are part of a board's joules, measured and estimated. Needs a CUDA build of
torch and nvidia-ml-py; nothing else may run on the GPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from agentflow.energy.chips import find_chip
from agentflow.energy.facts import CallFacts
from agentflow.energy.gpu import GpuProfile
from agentflow.energy.roofline import Chip, ModelShape
from agentflow.messages import TokenUsage
from benchmarks.table import Figure, show

BATCHES = (1, 2, 4, 8, 16, 32, 64)
_CONTEXT = 1024
_HEAD = 128
_WARM_UP = 20


@dataclass(frozen=True)
class Size:
    """A decoder: layers, width, heads of K and V, width of the feed-forward part."""

    name: str
    layers: int
    hidden: int
    kv_heads: int
    feed_forward: int

    @property
    def shape(self) -> ModelShape:
        """What the estimate is told of it: two bytes a parameter, no embeddings."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * _HEAD
        parameters = self.layers * (attention + 3 * self.hidden * self.feed_forward)
        return ModelShape(parameters, parameters, self.layers, 2.0 * 2 * self.layers * self.kv_heads * _HEAD)


SIZES = (
    Size("1 B", 16, 2048, 8, 8192),
    Size("3 B", 28, 3072, 8, 8192),
    Size("7 B", 32, 4096, 8, 14336),
    Size("13 B", 40, 5120, 8, 20480),
)


@dataclass(frozen=True)
class Point:
    """One size at one batch: joules of a token by the counter, and by the estimate with its 90 % interval."""

    model: str
    batch: int
    step_ms: float
    measured_j: float
    estimated_j: float
    low_j: float
    high_j: float
    watts: float
    celsius: float


class Decoder:
    """Random weights, a full K and V cache, one step at a time."""

    def __init__(self, torch: Any, size: Size, batch: int, device: str) -> None:
        def weights(rows: int, columns: int) -> Any:
            return torch.randn(rows, columns, device=device, dtype=torch.bfloat16) * 0.02

        self._torch, self._size, self._batch = torch, size, batch
        kv = size.kv_heads * _HEAD
        shapes = ((size.hidden, size.hidden), (size.hidden, 2 * kv), (size.hidden, size.hidden))
        shapes += ((size.hidden, 2 * size.feed_forward), (size.feed_forward, size.hidden))
        self._layers = [[weights(*shape) for shape in shapes] for _ in range(size.layers)]
        cache = (2, batch, size.kv_heads, _CONTEXT, _HEAD)
        self._caches = [torch.randn(*cache, device=device, dtype=torch.bfloat16) for _ in range(size.layers)]
        self._x = torch.randn(batch, size.hidden, device=device, dtype=torch.bfloat16)

    def step(self) -> None:
        """One new token of every sequence."""
        functional = self._torch.nn.functional
        x, heads, kv_heads = self._x, self._size.hidden // _HEAD, self._size.kv_heads
        for (query, key_value, out, up, down), cache in zip(self._layers, self._caches, strict=True):
            q = (x @ query).view(self._batch, heads, 1, _HEAD)
            cache[:, :, :, -1] = (x @ key_value).view(self._batch, 2, kv_heads, _HEAD).transpose(0, 1)
            seen = functional.scaled_dot_product_attention(q, cache[0], cache[1], enable_gqa=True)
            x = functional.rms_norm(x + seen.reshape(self._batch, -1) @ out, (self._size.hidden,))
            gate, value = (x @ up).chunk(2, dim=-1)
            x = functional.rms_norm(x + (functional.silu(gate) * value) @ down, (self._size.hidden,))


def window(step: Callable[[], None], settle: Callable[[], None], joules: Callable[[], float], seconds: float) -> Any:
    """Steps for some seconds: how many, how long they took, and the joules that the counter went up by."""
    for _ in range(_WARM_UP):
        step()
    settle()
    before, began, steps = joules(), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for _ in range(10):
            step()
        settle()
        steps += 10
    return steps, time.monotonic() - began, joules() - before


def estimated(size: Size, chip: Chip, batch: int, step_s: float) -> tuple[float, float, float]:
    """Median, low and high joules of a token, told the batch and the time of a step."""
    facts = CallFacts(TokenUsage(_CONTEXT, 1, _CONTEXT), batch=batch, itl_s=step_s)
    found = GpuProfile(size.shape, chip, scope="board").weigh(facts)
    return found.median, found.joules.low, found.joules.high


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window, 2 at least")
    asked = parser.parse_args()
    for library in ("torch", "pynvml"):
        if importlib.util.find_spec(library) is None:
            print(f"not measured: {library} is not installed")
            return 2
    torch, nvml = importlib.import_module("torch"), importlib.import_module("pynvml")
    if not torch.cuda.is_available():
        print("not measured: torch sees no CUDA device")
        return 2
    nvml.nvmlInit()
    device = nvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
    name = str(nvml.nvmlDeviceGetName(device))
    chip = find_chip(name)
    if chip is None:
        print(f"not measured: no data sheet for '{name}'")
        return 2

    def joules() -> float:
        return nvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3

    def celsius() -> float:
        return float(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))

    seconds = max(asked.seconds, 2.0)
    before, began = joules(), time.monotonic()
    time.sleep(seconds)
    idle = (joules() - before) / (time.monotonic() - began)
    points = list(measured(torch, chip, joules, celsius, seconds))
    title = f"{name}, driver {nvml.nvmlSystemGetDriverVersion()}, idle {idle:.0f} W, windows of {seconds:g} s"
    if asked.json:
        print(json.dumps({"title": title, "idle_w": idle, "points": [asdict(point) for point in points]}, indent=2))
        return 0
    return show(title, [_figure(point) for point in points])


def measured(
    torch: Any, chip: Chip, joules: Callable[[], float], celsius: Callable[[], float], seconds: float
) -> Iterator[Point]:
    """Every size at every batch that fits the GPU's memory."""
    for size in SIZES:
        for batch in BATCHES:
            needed = size.shape.weight_bytes(batch) + size.shape.kv_bytes * batch * _CONTEXT
            if needed > 0.9 * chip.memory_bytes:
                continue
            decoder = Decoder(torch, size, batch, "cuda")
            with torch.inference_mode():
                steps, took, used = window(decoder.step, torch.cuda.synchronize, joules, seconds)
            del decoder
            torch.cuda.empty_cache()
            median, low, high = estimated(size, chip, batch, took / steps)
            token_j = used / (steps * batch)
            yield Point(size.name, batch, 1e3 * took / steps, token_j, median, low, high, used / took, celsius())


def _figure(point: Point) -> Figure:
    said = f"{point.measured_j:.4g} J a token, {point.step_ms:.2f} ms a step, {point.watts:.0f} W"
    against = f"{point.estimated_j:.4g} J ({point.low_j:.4g} to {point.high_j:.4g})"
    held = point.low_j <= point.measured_j <= point.high_j
    return Figure(f"{point.model}, batch {point.batch}", said, against, held)


if __name__ == "__main__":
    raise SystemExit(main())
