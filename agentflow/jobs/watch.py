"""Watch: whoever waits for jobs to change, served by one question to the database a moment. Imports database, records.

All waiting of a process is one query every few hundredths of a second over the jobs that are waited for, and none when
nobody waits: a thousand idle readers cost what one does. What a job tells is read once, however many read it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from agentflow.errors import JobStoreError
from agentflow.jobs import records
from agentflow.jobs.database import Database
from agentflow.jobs.job import JobEvent, JobState
from agentflow.jobs.tables import job

_EVERY_S: Final = 0.03
# A reader that is further behind than this reads on by itself.
_TOLD_ALONG: Final = 100
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
        return self.state is not None and self.state.moves


@dataclass(frozen=True, slots=True)
class News:
    """A job that has changed. ``events`` are the newest of its log, as many as the reader lacks; none for laggards."""

    glimpse: Glimpse
    events: Sequence[JobEvent] = ()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who waits, since when, and whether for what is told too."""

    news: asyncio.Future[News]
    since: Glimpse
    told: bool

    def hear(self, glimpse: Glimpse, log: Sequence[JobEvent]) -> None:
        if self.news.done() or self.since == glimpse:
            return
        lacks = glimpse.events - self.since.events
        along = self.told and 0 < lacks <= len(log)
        self.news.set_result(News(glimpse, log[-lacks:] if along else ()))


class Watch:
    """Waits for jobs of one database on behalf of a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readers: defaultdict[str, set[_Reader]] = defaultdict(set)
        self._asking: asyncio.Task[None] | None = None

    async def changed(self, id: str, since: Glimpse, *, told: bool = False) -> News:
        """Wait until the job is not as it was.

        Args:
            id: the job.
            since: how it was.
            told: the events since then are wanted too.

        Raises:
            JobStoreError: the database cannot be read.
        """
        reader = _Reader(asyncio.get_running_loop().create_future(), since, told)
        self._readers[id].add(reader)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        try:
            return await reader.news
        finally:
            self._leave(id, reader)

    async def aclose(self) -> None:
        """Let nobody wait any longer."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        for reader in self._everybody():
            reader.news.cancel()

    def _leave(self, id: str, reader: _Reader) -> None:
        readers = self._readers.get(id)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self._readers[id]

    async def _ask(self) -> None:
        """Ask as long as somebody waits."""
        while self._readers:
            wanted = {id: _furthest(readers) for id, readers in self._readers.items()}
            try:
                glimpses, logs = await self._database.read(lambda c, wanted=wanted: _look_closely(c, wanted))
            except JobStoreError as error:
                for reader in self._everybody():
                    if not reader.news.done():
                        reader.news.set_exception(JobStoreError(*error.args))
                return
            for id in wanted:
                glimpse, log = glimpses.get(id, Glimpse(0, None)), logs.get(id, ())
                for reader in tuple(self._readers.get(id, ())):
                    reader.hear(glimpse, log)
            await asyncio.sleep(_EVERY_S)

    def _everybody(self) -> list[_Reader]:
        return [reader for readers in self._readers.values() for reader in readers]


def look(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Glimpse]:
    """A glimpse of each of these jobs that exists."""
    found: dict[str, Glimpse] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        for row in connection.execute(sa.select(job.c.id, job.c.events, job.c.state).where(job.c.id.in_(some))):
            found[row.id] = Glimpse(row.events, JobState(row.state))
    return found


def _furthest(readers: set[_Reader]) -> int | None:
    """The number since which a reader lacks events; None when nobody reads them."""
    return min((reader.since.events for reader in readers if reader.told), default=None)


def _look_closely(
    connection: sa.Connection, wanted: Mapping[str, int | None]
) -> tuple[dict[str, Glimpse], dict[str, list[JobEvent]]]:
    """The same, and what those jobs told since a number that have readers."""
    glimpses, logs = look(connection, list(wanted)), dict[str, list[JobEvent]]()
    for id, since in wanted.items():
        latest = glimpses[id].events if id in glimpses else 0
        if since is not None and since < latest:
            log = records.events(connection, id, max(since, latest - _TOLD_ALONG), _TOLD_ALONG)
            # In PostgreSQL each statement sees its own moment: what came after the glimpse is for the next one.
            logs[id] = [event for event in log if event.number <= latest]
    return glimpses, logs
