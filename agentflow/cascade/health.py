"""Health: a circuit breaker, so that nobody waits for a model that is down. Imports nothing of agentflow.

Closed: calls pass. Open: they are spared the wait. After a time one call is let through as a probe; its reply closes
the circuit, its failure opens it for twice as long.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Health = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a circuit opens, and for how long.

    Args:
        failures: so many failures in a row open it.
        rate: so does this share (0 to 1] of the last ``window`` attempts.
        window: attempts that the share is taken of; fewer never open it by their share.
        open_s: seconds until a probe is let through, doubled at each probe that fails.
        longest_s: the longest it stays open.
    """

    failures: int = 5
    rate: float = 0.5
    window: int = 20
    open_s: float = 5.0
    longest_s: float = 120.0


class Breaker:
    """The circuit of one rung.

    Every attempt asks ``admit`` first; one that was let through says how it ended by exactly one of ``succeeded``,
    ``failed`` and ``dropped``, and whether it was the probe (``probing`` was true right after it was admitted).

    Args:
        limits: when it opens.
        clock: seconds, monotonic.
    """

    __slots__ = ("_clock", "_failures", "_limits", "_open_until", "_opened", "_recent", "probing")

    def __init__(self, limits: BreakerLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self._recent: deque[bool] = deque(maxlen=self._limits.window)
        self._failures = 0
        self._open_until: float | None = None
        # How often in a row it was opened without a reply between.
        self._opened = 0
        self.probing = False
        """Whether a probe is on its way."""

    @property
    def health(self) -> Health:
        """Whether calls pass, and if not, whether one may probe."""
        if self._open_until is None:
            return "closed"
        return "open" if self.probing or self._clock() < self._open_until else "half_open"

    @property
    def retry_s(self) -> float:
        """Seconds until a probe may pass; 0 when one may now."""
        return 0.0 if self._open_until is None else max(self._open_until - self._clock(), 0.0)

    def admit(self, *, anyway: bool = False) -> bool:
        """Whether an attempt may leave. In the half-open state one may, and is the probe.

        Args:
            anyway: nothing else is left to try: let it through as a probe, whatever the state.
        """
        health = self.health
        if health == "closed":
            return True
        if health == "half_open" or anyway:
            self.probing = True
            return True
        return False

    def succeeded(self) -> None:
        """A reply came: the circuit closes."""
        if self._open_until is not None:
            self._open_until, self._opened, self.probing = None, 0, False
            self._recent.clear()
        self._failures = 0
        self._recent.append(True)

    def failed(self, rest_s: float | None = None, *, probe: bool = False) -> None:
        """The model failed, and may be down.

        Args:
            rest_s: how long the server asked to be left alone, when it said so: it is, at once, up to ``longest_s``.
            probe: this attempt was the probe.
        """
        self._failures += 1
        self._recent.append(False)
        # Of several probes (there may be, when nothing else is left) the first to fail has opened it already.
        if (probe and self.probing) or (self._open_until is None and self._too_many()):
            self._open()
        if rest_s is not None:
            rested = self._clock() + min(rest_s, self._limits.longest_s)
            self._open_until = rested if self._open_until is None else max(self._open_until, rested)

    def dropped(self, *, probe: bool = False) -> None:
        """The attempt ended without saying anything of the model: cancelled, or refused for a fault of its own."""
        if probe:
            self.probing = False

    def _too_many(self) -> bool:
        limits = self._limits
        if self._failures >= limits.failures:
            return True
        recent = self._recent
        return len(recent) == limits.window and recent.count(False) >= limits.rate * limits.window

    def _open(self) -> None:
        limits = self._limits
        wait_s = min(limits.open_s * 2.0 ** min(self._opened, 16), limits.longest_s)
        self._open_until = self._clock() + wait_s
        self._opened += 1
        self.probing = False
