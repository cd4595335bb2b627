"""Looking at counters often enough: a thread of its own, which stops when its owner does. May import window."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from agentflow.energy.probes.counter import Counter
from agentflow.energy.probes.window import Place, Track, Window, between
from agentflow.errors import CounterLost


class Sampler:
    """Looks at counters every ``period_s`` in its own thread, and tells what they counted since a mark.

    A counter must be looked at often, so that no wrap goes unseen; windows may be as long as you like. The thread ends,
    and the counters are closed, when the ``with`` block does. Any thread may take marks and windows, at once.

    Args:
        counters: what to look at; the sampler owns and closes them.
        period_s: seconds between looks; above 3 every window is invalid.
        clock: the monotonic clock of the readings.

    Example:
        >>> from agentflow.energy.probes.cpu_time import CpuTime
        >>> with Sampler([CpuTime()]) as sampler:
        ...     mark = sampler.mark()
        ...     total = sum(range(1_000_000))
        ...     windows = sampler.since(mark)
        >>> windows[0].facts.provenance
        'modelled'
    """

    def __init__(
        self, counters: Sequence[Counter], *, period_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not period_s > 0:
            raise ValueError(f"period_s must be above 0, got {period_s}")
        self._counters = tuple(counters)
        self._tracks = tuple(Track(counter.facts) for counter in self._counters)
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentflow-energy-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        """Look once, and start the thread."""
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the thread, wait for it, close the counters."""
        self._stop.set()
        self._thread.join()
        for counter in self._counters:
            counter.close()

    def mark(self) -> tuple[Place, ...]:
        """Look now; the start of windows."""
        return self._look()

    def since(self, mark: tuple[Place, ...]) -> tuple[Window, ...]:
        """Look now, and tell what each counter counted since the mark, in the order of the counters."""
        self._look()
        with self._lock:
            return tuple(between(track, place) for track, place in zip(self._tracks, mark, strict=True))

    def _look(self) -> tuple[Place, ...]:
        with self._lock:
            for counter, track in zip(self._counters, self._tracks, strict=True):
                try:
                    track.add(counter.read())
                except CounterLost:
                    track.lose(self._clock())
            return tuple(track.place for track in self._tracks)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._look()
