"""A model server whose load is looked at before and after each call, so that joules know its batch.

Around any backend of a server with a ``/metrics`` page. Imports server_metrics.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agentflow.backends.base import Backend, Probe
from agentflow.backends.server_metrics import ServerCounts, ServerMetrics
from agentflow.errors import BackendError
from agentflow.messages import Completion, Delta, Request

# A look that is not older serves the next call too: a busy process looks twice a second, not twice a call.
_FRESH_S: Final = 0.5
# A server without a page is asked again after this long.
_PAUSE_S: Final = 60.0


class ObservedBackend:
    """A backend whose completions carry the server's batch, where its page tells it.

    The page is never in the way: what goes wrong with it leaves the batch unknown, and the reply as it is.

    Args:
        inner: what speaks to the model.
        metrics: the server's page.
    """

    def __init__(self, inner: Backend, metrics: ServerMetrics) -> None:
        self.provider = inner.provider
        self.in_process = inner.in_process
        self._inner = inner
        self._metrics = metrics
        self._last: ServerCounts | None = None
        self._silent_until = 0.0

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask the model, and say how many sequences the server decoded together meanwhile."""
        before = await self._look(_FRESH_S)
        completion = await self._inner.complete(model, request, tell)
        if before is None or completion.batch is not None:
            return completion
        # The counters must have moved since: an old look would be the same as the one before.
        after = await self._look(0.0)
        batch = None if after is None else after.since(before).batch
        return completion if batch is None else replace(completion, batch=max(batch, 1.0))

    async def probe(self) -> Probe:
        """Whether the model can be reached."""
        return await self._inner.probe()

    async def aclose(self) -> None:
        """Close both connections."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._metrics.aclose)
            stack.push_async_callback(self._inner.aclose)

    async def _look(self, fresh_s: float) -> ServerCounts | None:
        now = time.monotonic()
        if now < self._silent_until:
            return None
        if self._last is not None and now - self._last.at_s < fresh_s:
            return self._last
        try:
            self._last = await self._metrics.read()
        except BackendError:
            self._last = None
            self._silent_until = now + _PAUSE_S
        return self._last
