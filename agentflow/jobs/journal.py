"""Journal: what a worker's jobs tell, written in batches, in the order in which each told it. Imports database.

Telling takes no time: a job goes on while its events are written, a few hundredths of a second later. Whoever needs
them written first waits for ``flush``; a run's end does.
"""

from __future__ import annotations

import asyncio
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


@dataclass(slots=True)
class _Page:
    """What one job has told and is not written yet."""

    fence: Fence
    run: int
    happenings: list[Happening] = field(default_factory=list[Happening])
    changes: dict[str, Any] = field(default_factory=dict[str, Any])


class Journal:
    """The events of one worker on their way into the database.

    Args:
        database: where they go.
        fenced: told of the jobs that are no longer this worker's.
    """

    def __init__(self, database: Database, fenced: Callable[[set[str]], None]) -> None:
        self._database = database
        self._fenced = fenced
        self._pages: dict[str, _Page] = {}
        self._told = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._writing = False

    def tell(
        self, fence: Fence, run: int, happenings: Sequence[Happening], changes: Mapping[str, Any] | None = None
    ) -> None:
        """Note events of a job, and what they change in its row."""
        page = self._pages.setdefault(fence.job, _Page(fence, run))
        page.happenings += happenings
        page.changes.update(changes or {})
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
            self._writing = bool(pages)
            waiting, self._waiting = self._waiting, []
            batch = secrets.token_hex(8)
            all_of_it = [Progress(p.fence, p.run, p.happenings, p.changes, batch) for p in pages.values()]
            try:
                if all_of_it:
                    self._fenced(await self._database.write(lambda c, all_of_it=all_of_it: progress(c, all_of_it)))
            except JobStoreError as error:
                self._put_back(pages)
                for future in waiting:
                    if not future.done():
                        future.set_exception(JobStoreError(*error.args))
                await asyncio.sleep(_AGAIN_S)
                self._told.set()
            else:
                self._writing = False
                for future in waiting:
                    if not future.done():
                        future.set_result(None)

    def drop(self, job: str) -> None:
        """Forget what a job told that is no longer this worker's."""
        self._pages.pop(job, None)

    def _put_back(self, pages: dict[str, _Page]) -> None:
        for job, page in pages.items():
            newer = self._pages.get(job)
            if newer is not None:
                page.happenings += newer.happenings
                page.changes.update(newer.changes)
            self._pages[job] = page
