"""Jobs: what everybody calls, and all they need: the SDK, the command line, the server. Imports records, watch, store.

It only reads and writes the database; workers do the work (``worker``). So submitting imports no engine, and any number
of processes may hold one of these over one database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from agentflow.jobs.job import (
    Artifact,
    JobBudget,
    JobEvent,
    JobFilter,
    JobPage,
    JobResult,
    JobSpec,
    JobStatistics,
    JobView,
)


class Jobs:
    """The jobs of one database.

    Every method that takes ``tenant`` sees that tenant's jobs alone; None sees all. Another tenant's job and one that
    does not exist are the same ``UnknownJob``.

    Example:
        >>> async with Jobs.open(settings) as jobs:                          # doctest: +SKIP
        ...     job = await jobs.submit(JobSpec(query="What limits inference?"))
        ...     async for event in jobs.events(job.id):
        ...         print(event.number, event.kind, event.data)
        ...     print((await jobs.result(job.id)).output)
    """

    async def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> JobView:
        """Write a job down; from then on it is never lost.

        Args:
            spec: what is asked.
            idempotency_key: the same key with the same spec gives the same job back, for as long as it is kept.

        Raises:
            KeyReused: the key came before with another spec.
            UsageError: no worker can run this kind, or the job it follows is unknown.
            JobStoreError: it could not be written; it was not submitted.
        """
        raise NotImplementedError

    async def get(self, id: str, *, tenant: str | None = None) -> JobView:
        """How the job stands.

        Raises:
            UnknownJob: there is none of this id.
        """
        raise NotImplementedError

    async def list(
        self, which: JobFilter = JobFilter(), *, cursor: str | None = None, limit: int = 50
    ) -> JobPage:
        """Jobs, newest first, ``limit`` (1 to 500) at a time.

        Raises:
            UsageError: the cursor is none that was given out, or the limit is out of bounds.
        """
        raise NotImplementedError

    def events(
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
        raise NotImplementedError

    async def wait(self, id: str, *, seconds: float | None = None, tenant: str | None = None) -> JobView:
        """How the job stands once it has ended or waits for a person, or after so many seconds."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def sources(self, id: str, *, tenant: str | None = None) -> Sequence[Artifact]:
        """What the job read; ``facts`` has each one's origin and title, ``read`` its text."""
        raise NotImplementedError

    async def artifacts(self, id: str, *, tenant: str | None = None) -> Sequence[Artifact]:
        """Everything the job keeps, by name: result, sources, rendered reports."""
        raise NotImplementedError

    async def read(self, id: str, name: str, *, tenant: str | None = None) -> bytes:
        """The content of one artifact, checked against its hash.

        Raises:
            UnknownJob: there is no such job, or it has no artifact of this name.
            JobStoreError: it is missing, or was changed.
        """
        raise NotImplementedError

    async def cancel(self, id: str, *, tenant: str | None = None) -> JobView:
        """End it, and discard what it found. A job that has ended already is left as it is."""
        raise NotImplementedError

    async def stop(self, id: str, *, tenant: str | None = None) -> JobView:
        """Let it finish early, with what was found. A job that has ended already is left as it is."""
        raise NotImplementedError

    async def resume(self, id: str, *, tenant: str | None = None) -> JobView:
        """Go on with a job that failed or is paused; what it paid for already is not paid again.

        Raises:
            JobStateConflict: it is neither.
        """
        raise NotImplementedError

    async def approve(self, id: str, *, plan: Sequence[str] | None = None, tenant: str | None = None) -> JobView:
        """Let a job go on that waits for its plan to be approved, with another plan when one is given.

        Raises:
            JobStateConflict: it does not wait for that.
        """
        raise NotImplementedError

    async def set_budget(self, id: str, budget: JobBudget, *, tenant: str | None = None) -> JobView:
        """Give the job other limits. A running one holds to them within a second; a paused one needs ``resume`` too.

        Raises:
            JobStateConflict: it has ended for good.
        """
        raise NotImplementedError

    async def delete(self, id: str, *, tenant: str | None = None) -> None:
        """Remove a job that has ended: its row, events, files, and the replies the ledger kept. The books stay.

        Raises:
            JobStateConflict: it has not ended; cancel it first.
        """
        raise NotImplementedError

    async def statistics(self) -> JobStatistics:
        """Queues and workers at this moment."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Let go of the database. Closing twice changes nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
