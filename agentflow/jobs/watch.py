"""Watch: whoever waits for jobs to change, served by one question to the database a moment. Imports database, tables.

All waiting of a process is one query every few hundredths of a second over the jobs that are waited for, and none when
nobody waits: a thousand idle readers cost what one does.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from agentflow.errors import JobStoreError
from agentflow.jobs.database import Database
from agentflow.jobs.job import JobState
from agentflow.jobs.tables import job

_EVERY_S: Final = 0.04
# Parameters of one statement, by SQLite's older limit.
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Glimpse:
    """As much of a job as says whether it has changed; ``state`` is None when it is no more."""

    events: int
    state: JobState | None

    @property
    def moves(self) -> bool:
        """Whether more happens without a person."""
        return self.state is not None and not (self.state.ended or self.state in _WAITS)


_WAITS: Final = frozenset({JobState.AWAITING_APPROVAL, JobState.PAUSED_BUDGET})


class Watch:
    """Waits for jobs of one database on behalf of a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readers: defaultdict[str, set[asyncio.Future[Glimpse]]] = defaultdict(set)
        self._seen: dict[asyncio.Future[Glimpse], Glimpse] = {}
        self._asking: asyncio.Task[None] | None = None

    async def changed(self, id: str, since: Glimpse) -> Glimpse:
        """Wait until the job is not as it was.

        Raises:
            JobStoreError: the database cannot be read.
        """
        future: asyncio.Future[Glimpse] = asyncio.get_running_loop().create_future()
        self._readers[id].add(future)
        self._seen[future] = since
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        try:
            return await future
        finally:
            self._leave(id, future)

    async def aclose(self) -> None:
        """Let nobody wait any longer."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        for future in tuple(self._seen):
            future.cancel()

    def _leave(self, id: str, future: asyncio.Future[Glimpse]) -> None:
        self._seen.pop(future, None)
        readers = self._readers.get(id)
        if readers is not None:
            readers.discard(future)
            if not readers:
                del self._readers[id]

    async def _ask(self) -> None:
        """Ask as long as somebody waits."""
        while self._readers:
            ids = list(self._readers)
            try:
                glimpses = await self._database.read(lambda c, ids=ids: look(c, ids))
            except JobStoreError as error:
                self._fail(error)
                return
            for id in ids:
                glimpse = glimpses.get(id, Glimpse(0, None))
                for future in tuple(self._readers.get(id, ())):
                    if not future.done() and self._seen[future] != glimpse:
                        future.set_result(glimpse)
            await asyncio.sleep(_EVERY_S)

    def _fail(self, error: JobStoreError) -> None:
        for future in tuple(self._seen):
            if not future.done():
                future.set_exception(JobStoreError(*error.args))


def look(connection: sa.Connection, ids: list[str]) -> dict[str, Glimpse]:
    """A glimpse of each of these jobs that exists."""
    found: dict[str, Glimpse] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        for row in connection.execute(sa.select(job.c.id, job.c.events, job.c.state).where(job.c.id.in_(some))):
            found[row.id] = Glimpse(row.events, JobState(row.state))
    return found
