"""Journal: what a worker's jobs tell, written in batches, in the order in which each told it. Imports database.

Telling takes no time: a job goes on while its events are written, a few hundredths of a second later. Whoever needs
them written first waits for ``flush``; a run's end does.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agentflow.errors import JobStoreError
from agentflow.jobs.database import Database
from agentflow.jobs.statements import Happening
from agentflow.jobs.transitions import Fence, Progress, progress

# Writing begins no sooner than so long after it last began, so that events gather; and so long after a failure.
_GATHER_S: Final = 0.03
_AGAIN_S: Final = 1.0
Latest = Callable[[], Mapping[str, Any]]


@dataclass(slots=True)
class _Page:
    """What one job has told and is not written yet."""

    fence: Fence
    run: int
    happenings: list[Happening] = field(default_factory=list[Happening])
    changes: dict[str, Any] = field(default_factory=dict[str, Any])
    latest: Latest | None = None

    def progress(self, batch: str) -> Progress:
        """It as it is written."""
        latest: Mapping[str, Any] = {} if self.latest is None else self.latest()
        return Progress(self.fence, self.run, self.happenings, {**self.changes, **latest}, batch)


class Journal:
    """The events of one worker on their way into the database.

    Args:
        database: where they go.
        fenced: told of the fences that no longer hold: these jobs are others' now.
    """

    def __init__(self, database: Database, fenced: Callable[[set[Fence]], None]) -> None:
        self._database = database
        self._fenced = fenced
        self._pages: dict[str, _Page] = {}
        self._told = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._writing = False

    def tell(
        self,
        fence: Fence,
        run: int,
        happenings: Sequence[Happening],
        changes: Mapping[str, Any] | None = None,
        latest: Latest | None = None,
    ) -> None:
        """Note events of a job, and what they change in its row.

        Args:
            fence: under which they are written.
            run: of the job.
            happenings: kinds and data of the events.
            changes: columns of its row and their new values.
            latest: gives more of these, when they are written.
        """
        page = self._pages.setdefault(fence.job, _Page(fence, run))
        page.happenings += happenings
        page.changes.update(changes or {})
        page.latest = latest or page.latest
        self._told.set()

    async def flush(self) -> None:
        """Wait until everything told so far is written.

        Raises:
            JobStoreError: it could not be; it is tried again.
        """
        if not self._pages and not self._waiting and not self._writing:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._told.set()
        await done

    async def write(self) -> None:
        """Write what is told, for ever: the worker runs this beside its jobs."""
        began = 0.0
        while True:
            await self._told.wait()
            await asyncio.sleep(max(began + _GATHER_S - time.monotonic(), 0.0))
            began = time.monotonic()
            self._told.clear()
            pages, self._pages = self._pages, {}
            waiting, self._waiting = self._waiting, []
            self._writing = bool(pages)
            if pages:
                batch = secrets.token_hex(8)
                waiting = await self._write([page.progress(batch) for page in pages.values()], waiting)
                self._writing = False
            _resolve(waiting)

    async def _write(
        self, all_of_it: Sequence[Progress], waiting: list[asyncio.Future[None]]
    ) -> list[asyncio.Future[None]]:
        """Write these events, however often it takes: whether a failed try was committed after all is not known.

        Returns:
            Who still waits for them: a failed try is told to all who wait by then.
        """
        tries = itertools.count()
        while True:
            try:
                self._fenced(await self._database.write(lambda c: progress(c, all_of_it, again=next(tries) > 0)))
                return waiting
            except JobStoreError as error:
                _resolve([*waiting, *self._waiting], error)
                waiting, self._waiting = [], []
                await asyncio.sleep(_AGAIN_S)

    def drop(self, job: str) -> None:
        """Forget what a job told that is no longer this worker's."""
        self._pages.pop(job, None)


def _resolve(waiting: Sequence[asyncio.Future[None]], error: JobStoreError | None = None) -> None:
    for future in waiting:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(JobStoreError(*error.args))
