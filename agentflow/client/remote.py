"""The jobs of a server elsewhere, in the shape of those of a database: what the command line works with.

Imports asynchronous, jobs.service.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from agentflow.client.asynchronous import AsyncClient
from agentflow.client.calls import request_of
from agentflow.errors import UnknownJob, UsageError
from agentflow.jobs.job import (
    Artifact,
    JobBudget,
    JobEvent,
    JobFilter,
    JobPage,
    JobSpec,
    JobState,
    JobView,
)
from agentflow.jobs.service import Jobs
from agentflow.jobs.sources import JobSources, SourceBounds
from agentflow.server.research.models import ResearchView

_REPORT, _RESULT = "report.md", "result.json"
# What a request over HTTP has no words for.
_LOCAL_ONLY = ("kind", "queue", "dedup_key", "tenant")


class RemoteJobs(Jobs):
    """Jobs behind an address.

    Args:
        client: of the server; it is closed with this.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> JobView:
        """Submit a job; files and folders of this machine are uploaded first.

        Raises:
            UsageError: it asks for what cannot be asked of a server, or a file cannot be read.
        """
        strange = [name for name in _LOCAL_ONLY if getattr(spec, name) != JobSpec.model_fields[name].default]
        if strange or spec.sources.allow_private:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in strange) or "--allow-private"
            raise UsageError(f"A server decides by itself about {names}. Leave it out.")
        urls = [origin for origin in spec.sources.origins if origin.startswith(("http://", "https://"))]
        paths = [Path(origin) for origin in spec.sources.origins if origin not in urls]
        files = [file for path in paths for file in _files(path)]
        collections = [await self._client.upload(f"uploaded {secrets.token_hex(4)}", files)] if files else []
        bounds = spec.sources.model_dump(include=set(SourceBounds.model_fields), exclude_defaults=True)
        request = request_of(
            spec.query,
            {
                "sources": {"urls": urls, "collections": [*spec.sources.collections, *collections], **bounds},
                "output": spec.output, "verify": spec.verify, "effort": spec.effort, "budget": spec.budget,
                "deadline": spec.deadline, "deferrable_until": spec.not_before, "priority": spec.priority,
                "plan": {"approve": spec.plan_approval}, "previous_id": spec.previous, "metadata": spec.metadata,
            },
        )  # fmt: skip
        return await self.get((await self._client.submit(request, idempotency_key=idempotency_key)).id)

    async def get(self, id: str, *, tenant: str | None = None) -> JobView:
        """How the job stands."""
        return _view(await self._client.get(id))

    async def list(
        self,
        which: JobFilter | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Jobs of the key's tenant, newest first."""
        which = which or JobFilter()
        page = await self._client.list(
            states=which.states, metadata=which.metadata, cursor=cursor, limit=min(limit, 100)
        )
        return JobPage(jobs=tuple(_view(view) for view in page.data), cursor=page.cursor)

    async def events(
        self, id: str, *, since: int = 0, follow: bool = True, tenant: str | None = None
    ) -> AsyncIterator[JobEvent]:
        """Events after number ``since``, until the job has ended."""
        async for event in self._client.events(id, since):
            yield event

    async def artifacts(self, id: str, *, tenant: str | None = None) -> Sequence[Artifact]:
        """The report, as far as there is one."""
        if not (await self._client.get(id)).has_result:
            return ()
        types = {_REPORT: "text/markdown", _RESULT: "application/json"}
        return [Artifact(name=n, role="artifact", media_type=t, size=0, sha256="") for n, t in types.items()]

    async def read(self, id: str, name: str, *, tenant: str | None = None) -> bytes:
        """The report in one of its forms.

        Raises:
            UnknownJob: a server gives out no file of this name.
        """
        if name == _REPORT:
            return (await self._client.markdown(id)).encode()
        if name == _RESULT:
            return json.dumps((await self._client.result(id, 0.0)).output, indent=2).encode()
        raise UnknownJob(f"The server gives out {_REPORT} and {_RESULT} of a job, not '{name[:80]}'.")

    async def cancel(self, id: str, *, tenant: str | None = None) -> JobView:
        """End it, and discard what it found."""
        return _view(await self._client.cancel(id))

    async def stop(self, id: str, *, tenant: str | None = None) -> JobView:
        """Let it finish early."""
        return _view(await self._client.stop(id))

    async def resume(self, id: str, *, tenant: str | None = None) -> JobView:
        """Go on with a job that failed or is paused."""
        return _view(await self._client.resume(id))

    async def approve(self, id: str, *, plan: Sequence[str] | None = None, tenant: str | None = None) -> JobView:
        """Let it go on with its plan, or with another."""
        return _view(await self._client.approve(id, plan))

    async def set_budget(self, id: str, budget: JobBudget, *, tenant: str | None = None) -> JobView:
        """Give it other limits."""
        return _view(await self._client.set_budget(id, budget))

    async def delete(self, id: str, *, tenant: str | None = None) -> None:
        """Remove a job that has ended."""
        await self._client.delete(id)

    async def aclose(self) -> None:
        """Let go of connections. Closing twice changes nothing."""
        await self._client.aclose()


def _files(path: Path) -> Sequence[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _view(view: ResearchView) -> JobView:
    """A job as the command line shows it: what a server does not tell is left out."""
    spec = JobSpec(
        query=view.query, effort=view.effort, budget=view.budget, metadata=view.metadata, previous=view.previous_id,
        sources=JobSources(),
    )  # fmt: skip
    names = ("stop_reason", "partial", "has_result", "error", "spend", "plan", "created", "started", "ended",
             "next_run", "runs", "failures", "recoveries", "events")  # fmt: skip
    return JobView(id=view.id, state=JobState(view.status), spec=spec, **{name: getattr(view, name) for name in names})
