"""Jobs: what everybody calls, and all they need: the SDK, the command line, the server. Imports records, watch, store.

It only reads and writes the database; workers do the work (``worker``). So submitting imports no engine, and any number
of processes may hold one of these over one database.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Final, Self

import sqlalchemy as sa

from agentflow.budget.ledger import Ledger
from agentflow.errors import JobFailed, JobStateConflict, UnknownJob
from agentflow.jobs import commands, records, transitions
from agentflow.jobs.database import Database
from agentflow.jobs.erasing import erase
from agentflow.jobs.job import (
    Artifact,
    JobBudget,
    JobEvent,
    JobFilter,
    JobPage,
    JobResult,
    JobSpec,
    JobState,
    JobStatistics,
    JobView,
)
from agentflow.jobs.naming import BASIS, RESULT, new_job_id
from agentflow.jobs.previous import followed
from agentflow.jobs.store.base import BlobStore
from agentflow.jobs.transitions import Submission
from agentflow.jobs.watch import Glimpse, Watch

# Events that are read at a time.
_BATCH: Final = 500


class Jobs:
    """The jobs of one database.

    Every method that takes ``tenant`` sees that tenant's jobs alone; None sees all. Another tenant's job and one that
    does not exist are the same ``UnknownJob``.

    Args:
        database: where they are.
        store: where their files are.
        ledger: what they spent; deleting a job drops the replies that are kept there.
        submitted: called after each submission of this process: its own worker need not wait to see it.

    Example:
        >>> async with open_jobs(settings) as jobs:                          # doctest: +SKIP
        ...     job = await jobs.submit(JobSpec(query="What limits inference?"))
        ...     async for event in jobs.events(job.id):
        ...         print(event.number, event.kind, event.data)
        ...     print((await jobs.result(job.id)).output)
    """

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        ledger: Ledger,
        *,
        submitted: Callable[[], None] | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._ledger = ledger
        self._submitted = submitted
        self._watch = Watch(database)

    async def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> JobView:
        """Write a job down; from then on it is never lost.

        Args:
            spec: what is asked.
            idempotency_key: the same key with the same spec gives the same job back, for as long as it is kept.

        Raises:
            KeyReused: the key came before with another spec.
            UnknownJob: there is no job that it follows, or that is another tenant's.
            JobStateConflict: the job that it follows has not ended, or has no result.
            UsageError: neither it nor the job it follows has sources.
            JobStoreError: it could not be written; it was not submitted.
        """
        request = spec.model_dump_json(exclude_defaults=True)
        new = Submission(new_job_id(), spec, hashlib.sha256(request.encode()).hexdigest(), idempotency_key)

        def work(connection: sa.Connection) -> records.Row:
            row = transitions.submit(connection, new)
            # A request that came before is answered as it was then, whatever became of the job that it follows.
            if row.id == new.id:
                followed(connection, spec)
            return row

        view = records.view_of(await self._database.write(work))
        if self._submitted is not None:
            self._submitted()
        return view

    async def check(self, spec: JobSpec) -> None:
        """Refuse what ``submit`` refuses for the job that it follows, and submit nothing.

        Raises:
            UnknownJob, JobStateConflict, UsageError: as ``submit`` says.
        """
        await self._database.read(lambda c: followed(c, spec))

    async def get(self, id: str, *, tenant: str | None = None) -> JobView:
        """How the job stands.

        Raises:
            UnknownJob: there is none of this id.
        """
        return records.view_of(await self._database.read(lambda c: records.find(c, id, tenant)))

    async def of_key(self, idempotency_key: str, *, tenant: str | None = None) -> JobView | None:
        """The job that was submitted with this key, if it is still there."""
        row = await self._database.read(lambda c: records.find_by_key(c, idempotency_key, tenant))
        return None if row is None else records.view_of(row)

    async def list(self, which: JobFilter | None = None, *, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Jobs, newest first, ``limit`` (1 to 500) at a time.

        Raises:
            UsageError: the cursor is none that was given out, or the limit is out of bounds.
        """
        return await self._database.read(lambda c: records.page(c, which or JobFilter(), cursor, limit))

    async def events(
        self, id: str, *, since: int = 0, follow: bool = True, tenant: str | None = None
    ) -> AsyncIterator[JobEvent]:
        """Events after number ``since``, each exactly once and in order.

        Args:
            id: the job.
            since: the last number that is known already.
            follow: wait for new ones until the job has ended, or waits for a person; else give what there is.
            tenant: see the class.

        Raises:
            UnknownJob: there is none of this id, or it was deleted meanwhile.
        """
        last, glimpse = since, await self._glimpse(id, tenant)
        while True:
            while last < glimpse.events:
                log = await self._log(id, last)
                if not log:
                    raise UnknownJob(f"The job '{id}' was deleted meanwhile.")
                for event in log:
                    last = event.number
                    yield event
            if not follow or not glimpse.moves:
                return
            # What was read may be newer than the glimpse.
            news = await self._watch.changed(id, Glimpse(max(last, glimpse.events), glimpse.state), told=True)
            glimpse = news.glimpse
            if glimpse.state is None:
                raise UnknownJob(f"The job '{id}' was deleted meanwhile.")
            for event in news.events:
                last = event.number
                yield event

    async def wait(self, id: str, *, seconds: float | None = None, tenant: str | None = None) -> JobView:
        """How the job stands once it has ended or waits for a person, or after so many seconds."""
        glimpse = await self._glimpse(id, tenant)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while glimpse.moves:
                    glimpse = (await self._watch.changed(id, glimpse)).glimpse
        return await self.get(id, tenant=tenant)

    async def result(self, id: str, *, wait_s: float | None = None, tenant: str | None = None) -> JobResult:
        """What the job found: all of it, or a part that is marked ``partial``.

        Args:
            id: the job.
            wait_s: wait at most so many seconds for its end; None: until it has ended or waits for a person.
            tenant: see the class.

        Raises:
            JobStateConflict: it has not ended yet, and has no partial result.
            JobFailed: it has ended without any result.
            UnknownJob: there is none of this id.
        """
        view = await self.wait(id, seconds=wait_s, tenant=tenant)
        if view.has_result:
            output = json.loads(await self.read(id, RESULT, tenant=tenant))
            partial = view.partial or not view.state.ended
            shaped = view.spec.output.json_schema is not None and await self._artifacts(id, tenant, BASIS)
            basis = json.loads(await self.read(id, BASIS, tenant=tenant)) if shaped else None
            return JobResult(
                id=id, state=view.state, stop_reason=view.stop_reason, partial=partial, output=output, basis=basis
            )
        if not view.state.ended:
            raise JobStateConflict(f"The job '{id}' is {view.state} and has no result yet. Wait for it, or stop it.")
        why = f": {view.error.message}" if view.error is not None else f" ({view.stop_reason})."
        raise JobFailed(f"The job '{id}' is {view.state} without a result{why}")

    async def sources(self, id: str, *, tenant: str | None = None) -> Sequence[Artifact]:
        """What the job read; ``facts`` has each one's origin and title, ``read`` its text."""
        return [one for one in await self.artifacts(id, tenant=tenant) if one.role == "source"]

    async def source_bytes(self, ids: Sequence[str]) -> dict[str, int]:
        """How many bytes of text each of these jobs has read; those without sources are left out."""
        return await self._database.read(lambda c: records.source_bytes(c, ids))

    async def artifacts(self, id: str, *, tenant: str | None = None) -> Sequence[Artifact]:
        """Everything the job keeps, by name: result, sources, rendered reports."""
        return await self._artifacts(id, tenant)

    async def read(self, id: str, name: str, *, tenant: str | None = None) -> bytes:
        """The content of one artifact, checked against its hash.

        Raises:
            UnknownJob: there is no such job, or it has no artifact of this name.
            JobStoreError: it is missing, or was changed.
        """
        found = await self._artifacts(id, tenant, name)
        if not found:
            raise UnknownJob(f"The job '{id}' has nothing called '{name[:80]}'.")
        return await self._store.get(id, found[0].sha256)

    async def cancel(self, id: str, *, tenant: str | None = None) -> JobView:
        """End it, and discard what it found. A job that has ended already is left as it is."""
        if await self._database.write(lambda c: commands.cancel(c, id, tenant)):
            await self._store.delete(id)
        return await self.get(id, tenant=tenant)

    async def stop(self, id: str, *, tenant: str | None = None) -> JobView:
        """Let it finish early, with what was found. A job that has ended already is left as it is."""
        await self._database.write(lambda c: commands.stop(c, id, tenant))
        return await self.get(id, tenant=tenant)

    async def resume(self, id: str, *, tenant: str | None = None) -> JobView:
        """Go on with a job that failed or is paused; what it paid for already is not paid again.

        Raises:
            JobStateConflict: it is neither.
        """
        await self._database.write(lambda c: commands.resume(c, id, tenant))
        return await self._again(id, tenant)

    async def approve(self, id: str, *, plan: Sequence[str] | None = None, tenant: str | None = None) -> JobView:
        """Let a job go on that waits for its plan to be approved, with another plan when one is given.

        Raises:
            JobStateConflict: it does not wait for that.
        """
        await self._database.write(lambda c: commands.approve(c, id, tenant, plan))
        return await self._again(id, tenant)

    async def set_budget(self, id: str, budget: JobBudget, *, tenant: str | None = None) -> JobView:
        """Give the job other limits. A running one holds to them within a second; a paused one needs ``resume`` too.

        Raises:
            JobStateConflict: it has ended for good.
        """
        await self._database.write(lambda c: commands.set_budget(c, id, tenant, budget))
        return await self.get(id, tenant=tenant)

    async def delete(self, id: str, *, tenant: str | None = None) -> None:
        """Remove a job that has ended: its row, events, files, and the replies the ledger kept. The books stay.

        Raises:
            JobStateConflict: it has not ended; cancel it first.
        """
        view = await self.get(id, tenant=tenant)
        if not view.state.ended:
            raise JobStateConflict(f"The job '{id}' is {view.state}. Cancel it first, then delete it.")
        await erase(self._database, self._store, self._ledger, id)

    async def statistics(self) -> JobStatistics:
        """Queues and workers at this moment."""
        return await self._database.read(records.statistics)

    async def aclose(self) -> None:
        """Let go of the database and the files. Closing twice changes nothing."""
        await self._watch.aclose()
        await self._store.aclose()
        await self._ledger.aclose()
        await self._database.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _artifacts(self, id: str, tenant: str | None, name: str | None = None) -> Sequence[Artifact]:
        def look(connection: sa.Connection) -> Sequence[Artifact]:
            records.find(connection, id, tenant)
            return records.artifacts(connection, id, name)

        return await self._database.read(look)

    async def _again(self, id: str, tenant: str | None) -> JobView:
        if self._submitted is not None:
            self._submitted()
        return await self.get(id, tenant=tenant)

    async def _log(self, id: str, since: int) -> Sequence[JobEvent]:
        return await self._database.read(lambda c: records.events(c, id, since, _BATCH))

    async def _glimpse(self, id: str, tenant: str | None) -> Glimpse:
        row = await self._database.read(lambda c: records.find(c, id, tenant))
        return Glimpse(row.events, JobState(row.state))
