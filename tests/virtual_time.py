"""An event loop whose clock jumps to the next timer instead of waiting for it: whole minutes in microseconds.

Nothing in it may wait for the outside (sockets, threads): when no timer is set and nobody is ready, the test hangs in
a way that no clock ends, and that is an error.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Never(selectors.SelectSelector):
    """Instead of waiting, tells the loop how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._never = _Never()
        super().__init__(self._never)

    def time(self) -> float:
        return self._never.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a clock of its own; tasks that outlive it are a failure."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def whole() -> T:
            result = await main
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks outlived their parent: {left}"
            return result

        return runner.run(whole())


def now() -> float:
    """The clock of the running loop, to be injected."""
    return asyncio.get_running_loop().time()
