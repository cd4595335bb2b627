"""A model in this process whose joules are read off this machine's counters. Around a backend; imports energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agentflow.backends.base import Backend, Probe
from agentflow.energy.shared_meter import SharedMeter
from agentflow.messages import Completion, Delta, MeasuredJoules, Request


class MeasuredBackend:
    """A backend whose completions carry what their part of this machine's energy was.

    Args:
        inner: a backend in this process.
        meter: of this machine, shared by all such backends.
        threads: that one call keeps busy; its weight beside other calls.
    """

    in_process = True

    def __init__(self, inner: Backend, meter: SharedMeter, *, threads: int = 1) -> None:
        self.provider = inner.provider
        self._inner = inner
        self._meter = meter
        self._threads = threads

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask the model, and measure. Where the counters have no figure, the reply is as it was."""
        async with self._meter.measuring(self._threads) as call:
            completion = await self._inner.complete(model, request, tell)
        energy = call.energy
        if energy is None:
            return completion
        measured = MeasuredJoules(
            energy.mean, energy.low, energy.high, energy.provenance == "measured", energy.scope, energy.assumed
        )
        return replace(completion, measured=measured)

    async def probe(self) -> Probe:
        """Whether the model can be reached."""
        return await self._inner.probe()

    async def aclose(self) -> None:
        """Close the backend; the meter belongs to whoever made it."""
        await self._inner.aclose()
