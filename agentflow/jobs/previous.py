"""The job that another one follows: whether it can be followed, and what it leaves to it. Imports records, the store.

Whoever submits asks the first, so that a request is refused at once; the worker asks again, for a job may be deleted in
between.
"""

from __future__ import annotations

import json
from typing import Any, cast

import sqlalchemy as sa

from agentflow.errors import JobStateConflict, JobStoreError, UnknownJob, UsageError
from agentflow.jobs import records
from agentflow.jobs.database import Database
from agentflow.jobs.job import Artifact, JobSpec
from agentflow.jobs.naming import REPORT, RESULT
from agentflow.jobs.store.base import BlobStore
from agentflow.research.earlier import Earlier
from agentflow.research.sources.source import Source, SourceDate


def followed(connection: sa.Connection, spec: JobSpec) -> list[Artifact]:
    """Everything that the job keeps which ``spec`` follows; nothing where it follows none, or need not look into it.

    Raises:
        UnknownJob: there is no such job, or it is another tenant's.
        JobStateConflict: it has not ended, or has no result.
        UsageError: it is no research job; or neither of the two has sources.
    """
    if spec.previous is None:
        return []
    id = spec.previous
    view = records.view_of(records.find(connection, id, spec.tenant))
    if spec.kind != "research":
        return []
    if view.spec.kind != "research":
        raise UsageError(f"previous: the job '{id}' is of kind '{view.spec.kind}'; a research job follows another one.")
    if not view.state.ended:
        raise JobStateConflict(f"The job '{id}' is {view.state}. Wait until it has ended, or stop it, then follow it.")
    if not view.has_result:
        raise JobStateConflict(f"The job '{id}' is {view.state} and has no result that could be followed.")
    kept = records.artifacts(connection, id)
    if not spec.sources.named and not any(one.role == "source" for one in kept):
        raise UsageError(f"sources: there is nothing to look in: none are named, and the job '{id}' has read none.")
    return kept


async def load_previous(database: Database, store: BlobStore, spec: JobSpec) -> tuple[Earlier, tuple[Source, ...]]:
    """What the job that ``spec`` follows asked and found, and its sources if ``spec`` names none of its own.

    Raises:
        UsageError: it is gone, or leaves nothing.
        JobStoreError: its files cannot be read.
    """
    assert spec.previous is not None
    try:
        kept = await database.read(lambda c: followed(c, spec))
        report: Any = json.loads(await store.get(spec.previous, _report(kept).sha256))
        earlier = Earlier(
            str(report.get("question", "")),
            tuple(str(part["text"]) for part in report.get("sub_questions", ())),
            tuple(str(claim["text"]) for claim in report.get("claims", ())),
        )
        sources = () if spec.sources.named else [one for one in kept if one.role == "source"]
        return earlier, tuple([await _source(store, spec.previous, one) for one in sorted(sources, key=_number)])
    except UnknownJob as error:
        raise _gone(spec.previous) from error
    except JobStoreError:
        # Its files go before its row does.
        if await _still_there(database, spec):
            raise
        raise _gone(spec.previous) from None


def _report(kept: list[Artifact]) -> Artifact:
    """The job's report; its result was that before results had other forms."""
    named = {one.name: one for one in kept}
    return named.get(REPORT) or named[RESULT]


async def _source(store: BlobStore, job: str, kept: Artifact) -> Source:
    facts = cast("dict[str, Any]", kept.facts)
    text = (await store.get(job, kept.sha256)).decode("utf-8", "surrogatepass")
    origin, title, read_at = (str(facts.get(name) or "") for name in ("origin", "title", "read_at"))
    return Source(_id(kept), origin, title, text, kept.sha256, read_at, kept.media_type, SourceDate.of(facts))


def _id(kept: Artifact) -> str:
    return str(kept.facts.get("id") or "")


def _number(kept: Artifact) -> int:
    return int(_id(kept).removeprefix("s") or 0)


async def _still_there(database: Database, spec: JobSpec) -> bool:
    try:
        await database.read(lambda c: records.find(c, spec.previous or "", spec.tenant))
    except UnknownJob:
        return False
    return True


def _gone(id: str) -> UsageError:
    return UsageError(f"The job '{id}', which this one follows, was deleted. Submit this one anew without it.")
