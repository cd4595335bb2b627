"""A handle on one job, as ``Flow.submit`` gives it. Imports service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from agentflow.budget.budget import Budget
from agentflow.jobs.job import Artifact, JobEvent, JobResult, JobState, JobView, budget_for_job
from agentflow.jobs.service import Jobs


class JobHandle:
    """One job.

    Args:
        jobs: where it is.
        view: how it stood when it was submitted.

    Example:
        >>> job = await flow.submit("research", query="...", sources=["docs"])    # doctest: +SKIP
        ... async for event in job.events():
        ...     print(event.kind)
        ... print((await job.result()).output)
    """

    def __init__(self, jobs: Jobs, view: JobView) -> None:
        self._jobs = jobs
        self.id = view.id
        self._tenant = view.spec.tenant

    async def view(self) -> JobView:
        """How it stands."""
        return await self._jobs.get(self.id, tenant=self._tenant)

    async def state(self) -> JobState:
        """Where it stands."""
        return (await self.view()).state

    def events(self, since: int = 0, *, follow: bool = True) -> AsyncIterator[JobEvent]:
        """Its events after number ``since``, live until it has ended or waits for a person."""
        return self._jobs.events(self.id, since=since, follow=follow, tenant=self._tenant)

    async def wait(self, seconds: float | None = None) -> JobView:
        """How it stands once it has ended or waits for a person, or after so many seconds."""
        return await self._jobs.wait(self.id, seconds=seconds, tenant=self._tenant)

    async def result(self, wait_s: float | None = None) -> JobResult:
        """What it found, whole or partial; waits for its end.

        Raises:
            JobFailed: it has ended without any result.
            JobStateConflict: after ``wait_s`` there is none yet.
        """
        return await self._jobs.result(self.id, wait_s=wait_s, tenant=self._tenant)

    async def artifacts(self) -> Sequence[Artifact]:
        """Everything it keeps, by name."""
        return await self._jobs.artifacts(self.id, tenant=self._tenant)

    async def read(self, name: str) -> bytes:
        """The content of one of these."""
        return await self._jobs.read(self.id, name, tenant=self._tenant)

    async def cancel(self) -> JobView:
        """End it, and discard what it found."""
        return await self._jobs.cancel(self.id, tenant=self._tenant)

    async def stop(self) -> JobView:
        """Let it finish early, with what was found."""
        return await self._jobs.stop(self.id, tenant=self._tenant)

    async def resume(self) -> JobView:
        """Go on with it after a failure or a pause."""
        return await self._jobs.resume(self.id, tenant=self._tenant)

    async def approve(self, plan: Sequence[str] | None = None) -> JobView:
        """Let it go on with its plan, or with this one."""
        return await self._jobs.approve(self.id, plan=plan, tenant=self._tenant)

    async def set_budget(self, budget: Budget) -> JobView:
        """Give it other limits; what it does when one is reached stays."""
        on_limit = (await self.view()).spec.budget.on_limit
        return await self._jobs.set_budget(self.id, budget_for_job(budget, on_limit), tenant=self._tenant)
