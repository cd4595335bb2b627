"""What this machine's counters measured, shared among the calls that ran meanwhile. Imports probes, attribution.

Time is cut where a call begins or ends. Of each stretch, what was idle goes to nobody; the rest is split by how long
each call ran in it, times its weight. What the calls get and what was idle add up to what was counted, exactly. Idle is
the least that the device drew over a second in which no call ran. What other programs draw beside our calls no counter
tells apart: it is in the calls' share.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from agentflow.energy.attribution import attribute
from agentflow.energy.interval import Energy
from agentflow.energy.probes.counter import Counter
from agentflow.energy.probes.ladder import total
from agentflow.energy.probes.sampler import Sampler
from agentflow.energy.probes.window import Window

# No reply is kept back for longer than this, so that its last stretch is long enough for a counter.
_LONGEST_WAIT_S: Final = 0.05
# A stretch without calls must last as long before its power is taken for idle.
_IDLE_S: Final = 1.0


@dataclass(eq=False, slots=True)
class Measured:
    """A call that is measured; its ``energy`` is known after the block, None when a counter gave no figure for it."""

    weight: float
    energy: Energy | None = None
    _share: float = 0.0
    _lost: bool = False


@dataclass(frozen=True, slots=True)
class Shared:
    """Microjoules since the meter began: counted in all, of them given to calls, and idle."""

    counted: int = 0
    given: int = 0
    idle: int = 0


class SharedMeter:
    """Counters of one machine, and the calls that run on it.

    Args:
        counters: what to read, as ``probes.ladder.survey`` finds them; the meter owns and closes them.
        clock: the monotonic clock.

    Example:
        >>> from agentflow.energy.probes.cpu_time import CpuTime
        >>> async def main() -> None:
        ...     meter = SharedMeter([CpuTime()])
        ...     async with meter.measuring() as call:
        ...         total = sum(range(3_000_000))
        ...     meter.close()
        ...     assert call.energy is None or call.energy.high > 0
        >>> asyncio.run(main())
    """

    def __init__(self, counters: Sequence[Counter], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sampler = Sampler(counters, clock=clock)
        self._sampler.__enter__()
        self._clock = clock
        self._lock = threading.Lock()
        self._active: dict[int, Measured] = {}
        self._mark = self._sampler.mark()
        self._at = clock()
        self._shared = Shared()
        self._idle_w: dict[str, float] = {}
        self._shortest_s = max((c.facts.shortest_s for c in counters if c.facts.counted), default=0.0)

    @property
    def shared(self) -> Shared:
        """How the counted microjoules were shared out so far."""
        return self._shared

    @asynccontextmanager
    async def measuring(self, weight: float = 1.0) -> AsyncGenerator[Measured]:
        """Measure what runs inside the block.

        Args:
            weight: of the call beside others that run at the same time: its threads, say.
        """
        call = Measured(weight)
        with self._lock:
            self._cut()
            self._active[id(call)] = call
        try:
            yield call
            left = self._shortest_s - (self._clock() - self._mark_at)
            if 0 < left <= _LONGEST_WAIT_S:
                await asyncio.sleep(left)
        finally:
            with self._lock:
                self._cut()
                del self._active[id(call)]
            if call._lost or call._share > 0:
                call.energy = None

    def close(self) -> None:
        """Stop reading."""
        self._sampler.__exit__(None, None, None)

    @property
    def _mark_at(self) -> float:
        return min((place.at_s for place in self._mark), default=self._clock())

    def _cut(self) -> None:
        """End a stretch: whoever ran in it has a share, and where the counters have a figure it is given out."""
        now = self._clock()
        for call in self._active.values():
            call._share += call.weight * max(now - self._at, 0.0)
        self._at = now
        windows = [window for window in self._sampler.since(self._mark) if window.facts.counted]
        if any(window.reason == "too_short" for window in windows):
            return
        self._mark = self._sampler.mark()
        energy = total(windows)
        if energy is not None:
            self._give(windows, energy)
        for call in self._active.values():
            call._lost = call._lost or energy is None
            call._share = 0.0

    def _give(self, windows: Sequence[Window], energy: Energy) -> None:
        counted = sum(window.microjoules or 0 for window in windows)
        names = {str(key): call for key, call in self._active.items() if call._share > 0}
        if not names:
            self._note_idle(windows)
        idle = sum((window.less_idle(self._idle_w.get(window.facts.name, 0.0)) or (0, 0))[1] for window in windows)
        shares = attribute(counted, {name: call._share for name, call in names.items()}, idle_uj=idle)
        for name, call in names.items():
            part = shares.energy(name, energy)
            if len(self._idle_w) < len(windows):
                part = replace(part, assumed=(*part.assumed, "never seen idle: nothing is taken off for it"))
            call.energy = part if call.energy is None else call.energy + part
        before = self._shared
        self._shared = Shared(
            before.counted + counted, before.given + sum(shares.calls.values()), before.idle + shares.idle
        )

    def _note_idle(self, windows: Sequence[Window]) -> None:
        """What each device draws while none of our calls runs: the least that was seen over a second."""
        for window in windows:
            if window.watts is not None and window.seconds >= _IDLE_S:
                known = self._idle_w.get(window.facts.name, window.watts)
                self._idle_w[window.facts.name] = min(known, window.watts)
