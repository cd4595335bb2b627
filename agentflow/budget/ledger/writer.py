"""Writer: one thread that applies whatever is queued as one batch, so that many tasks share one commit.

Tasks of any event loop wait for their own operation; while a batch commits, the next one gathers. Imports operations.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from agentflow.budget.ledger.operations import Operation, Result
from agentflow.errors import AgentflowError, LedgerError

_MOST: Final = 256
# How long an operation that nobody waits for may wait for others to share its commit.
_PATIENCE_S: Final = 0.02
# How long a batch waits for as many operations as the last one had: the tasks that it let go are back by then.
_LINGER_S: Final = 0.002
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


# What waits its turn (None ends the thread), and who waits for it.
_Work = Operation | Callable[[], Any] | None
_Item = tuple[_Work, "asyncio.Future[Any] | None"]


class Writer:
    """The thread and its queue.

    Args:
        store: what it writes to, from this thread alone.
        name: of the thread.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._queue: deque[_Item] = deque()
        self._changed = threading.Condition()
        # How many items of the queue somebody waits for, how many the thread waits for, how many the last batch had.
        self._urgent = self._enough = self._company = 0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False
        self._process = 0

    def submit(self, operation: Operation) -> asyncio.Future[Result]:
        """Queue an operation; it is recorded when the future is done. Cancelling that does not take it back.

        The future fails with the AgentflowError for which the operation was refused or could not be recorded.
        """
        return self._wait(operation)

    def call(self, function: Callable[[], Value]) -> asyncio.Future[Value]:
        """Run a function on the writer's thread, in turn."""
        return self._wait(function)

    def post(self, work: Operation | Callable[[], Any]) -> None:
        """Queue an operation or a function without waiting for it. An operation shares a commit, if one is near."""
        self._put((work, None))

    async def aclose(self) -> None:
        """Record what is queued, close the store, end the thread."""
        with self._starting:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            with self._changed:
                self._queue.append((None, None))
                self._urgent = _MOST
                self._changed.notify()
            await asyncio.to_thread(thread.join)

    def _wait(self, work: Operation | Callable[[], Any]) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self._put((work, future))
        return future

    def _put(self, item: _Item) -> None:
        if self._thread is None:
            self._start()
        if self._process != os.getpid():
            raise LedgerError("This process was forked after its ledger was opened. Open a ledger in each process.")
        with self._changed:
            self._queue.append(item)
            self._urgent += not _can_wait(item)
            # It is woken when there is enough for a batch, not by every item.
            if self._urgent >= self._enough:
                self._changed.notify()

    def _start(self) -> None:
        with self._starting:
            if self._closed:
                raise LedgerError("The ledger is closed. Open another one to record more.")
            if self._thread is None:
                # A daemon: a program that forgets to close its ledger still ends, and what was awaited is recorded.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._process = os.getpid()
                self._thread.start()

    def _work(self) -> None:
        open_ = True
        while open_:
            items = self._gather()
            open_ = items[-1][0] is not None
            batch: list[tuple[Operation, asyncio.Future[Any] | None]] = []
            for work, future in items:
                if callable(work):
                    self._commit(batch)
                    batch = []
                    self._call(work, future)
                elif work is not None:
                    batch.append((work, future))
            self._commit(batch)
        self._store.close()

    def _gather(self) -> list[_Item]:
        """Everything that is queued, up to the item that ends the thread."""
        with self._changed:
            self._await(0)
            self._await(1, _PATIENCE_S)
            if self._company > 1:
                self._await(self._company, _LINGER_S)
            items: list[_Item] = []
            while self._queue and len(items) < _MOST and not (items and items[-1][0] is None):
                items.append(self._queue.popleft())
            self._company = sum(not _can_wait(item) for item in items)
            self._urgent -= self._company
        return items

    def _await(self, urgent: int, seconds: float | None = None) -> None:
        """Wait until so many items that somebody waits for are queued; until there is any item, for 0."""
        self._enough = urgent
        self._changed.wait_for(lambda: self._urgent >= urgent and bool(self._queue), seconds)

    def _commit(self, batch: Sequence[tuple[Operation, asyncio.Future[Any] | None]]) -> None:
        if not batch:
            return
        try:
            results = self._store.commit([operation for operation, _ in batch])
        except LedgerError as error:
            results = [_failure(error) for _ in batch]
        except Exception as error:
            if len(batch) > 1:
                # Something in it cannot be written at all; the others need not suffer for it.
                for item in batch:
                    self._commit([item])
                return
            results = [_failure(error)]
        _deliver([(future, result) for (_, future), result in zip(batch, results, strict=True) if future is not None])

    @staticmethod
    def _call(function: Callable[[], Any], future: asyncio.Future[Any] | None) -> None:
        try:
            result = function()
        except Exception as error:
            result = _failure(error)
        if future is not None:
            _deliver([(future, result)])


def _can_wait(item: _Item) -> bool:
    work, future = item
    return future is None and not callable(work)


def _failure(error: Exception) -> AgentflowError:
    """An error of its own for each who waits: one that is shared would gather their tracebacks."""
    if isinstance(error, LedgerError):
        return LedgerError(*error.args)
    return LedgerError(f"The ledger failed, and nothing was recorded: {type(error).__name__}: {error}.")


def _deliver(results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    """Hand results to those who wait, with one wake-up for each event loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
    for future, result in results:
        by_loop[future.get_loop()].append((future, result))
    for loop, waiting in by_loop.items():
        # A loop that was closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, waiting)


def _resolve(waiting: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in waiting:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
