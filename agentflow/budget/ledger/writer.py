"""Writer: one thread that applies whatever is queued as one batch, so that many tasks share one commit.

Tasks of any event loop wait for their own operation; while a batch commits, the next one gathers. Imports operations.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

from agentflow.budget.ledger.operations import Operation, Result
from agentflow.errors import AgentflowError, LedgerError

_MOST: Final = 256
Value = TypeVar("Value")


class Store(Protocol):
    """A database, as the writer's thread uses it."""

    def commit(self, operations: Sequence[Operation]) -> Sequence[Result | AgentflowError]:
        """Apply operations in order, in one transaction.

        Returns:
            What each gave, or why it was refused.

        Raises:
            LedgerError: nothing was recorded.
        """
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


@dataclass(slots=True)
class _Item:
    """An operation or a function that waits its turn; ``future`` is None when nobody waits for it."""

    work: Operation | Callable[[], Any] | None
    future: asyncio.Future[Any] | None = None


class Writer:
    """The thread and its queue.

    Args:
        store: what it writes to, from this thread alone.
        name: of the thread.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    async def submit(self, operation: Operation) -> Result:
        """Queue an operation, and wait until it is recorded. Giving up the wait does not take it back.

        Raises:
            AgentflowError: it was refused, or could not be recorded.
        """
        return cast("Result", await self._wait(operation))

    async def call(self, function: Callable[[], Value]) -> Value:
        """Run a function on the writer's thread, in turn."""
        return cast("Value", await self._wait(function))

    def post(self, work: Operation | Callable[[], Any]) -> None:
        """Queue an operation or a function without waiting for it."""
        self._put(_Item(work))

    async def aclose(self) -> None:
        """Record what is queued, close the store, end the thread."""
        with self._starting:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(_Item(None))
            await asyncio.to_thread(thread.join)

    def _wait(self, work: Operation | Callable[[], Any]) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self._put(_Item(work, future))
        return future

    def _put(self, item: _Item) -> None:
        if self._thread is None:
            self._start()
        self._queue.put(item)

    def _start(self) -> None:
        with self._starting:
            if self._closed:
                raise LedgerError("The ledger is closed. Open another one to record more.")
            if self._thread is None:
                # A daemon: a program that forgets to close its ledger still ends, and what was awaited is recorded.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        open_ = True
        while open_:
            items = self._gather()
            open_ = all(item.work is not None for item in items)
            batch: list[_Item] = []
            for item in items:
                if callable(item.work):
                    self._commit(batch)
                    batch = []
                    self._call(item, item.work)
                elif item.work is not None:
                    batch.append(item)
            self._commit(batch)
        self._store.close()

    def _gather(self) -> list[_Item]:
        items = [self._queue.get()]
        while len(items) < _MOST and items[-1].work is not None:
            try:
                items.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return items

    def _commit(self, batch: Sequence[_Item]) -> None:
        if not batch:
            return
        operations = [cast("Operation", item.work) for item in batch]
        try:
            results = self._store.commit(operations)
        except Exception as error:
            results = [_failure(error) for _ in batch]
        _deliver(list(zip(batch, results, strict=True)))

    @staticmethod
    def _call(item: _Item, function: Callable[[], Any]) -> None:
        try:
            result = function()
        except Exception as error:
            result = _failure(error)
        _deliver([(item, result)])


def _failure(error: Exception) -> AgentflowError:
    """An error of its own for each who waits: one that is shared would gather their tracebacks."""
    if isinstance(error, LedgerError):
        return LedgerError(*error.args)
    return LedgerError(f"The ledger failed, and nothing was recorded: {type(error).__name__}: {error}.")


def _deliver(results: Sequence[tuple[_Item, Any]]) -> None:
    """Hand results to those who wait, with one wake-up for each event loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
    for item, result in results:
        if item.future is not None:
            by_loop[item.future.get_loop()].append((item.future, result))
    for loop, waiting in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, waiting)


def _resolve(waiting: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in waiting:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
