"""Responses that are kept: read again, gone on from, deleted. Imports annex, tables, response_bodies.

How a response ended is written once, by whoever comes first: its worker, or whoever cancels it. No web framework:
workers write here too.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from agentflow.errors import JobStateConflict, UnknownJob, UsageError
from agentflow.jobs.annex import Annex
from agentflow.server.openai.response_bodies import InputItem, ResponseBody, ResponseRequest
from agentflow.server.tables import response as responses

# Turns back that a conversation is followed.
LONGEST_CONVERSATION: Final = 1_000
_RETIRED_AT_ONCE: Final = 100
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is kept. ``body`` is None while it is not known how it ends; ``job`` does it, where one does."""

    id: str
    tenant: str
    created_ms: int
    asked: ResponseRequest
    job: str | None = None
    body: ResponseBody | None = None

    def standing(self, status: Any) -> ResponseBody:
        """The response while it has no output."""
        return ResponseBody.of(self.id, self.created_ms // 1_000, self.asked, status)


def new_response(tenant: str, asked: ResponseRequest) -> StoredResponse:
    """A response that is about to be made, with a name that nobody guesses."""
    return StoredResponse(f"resp_{secrets.token_hex(24)}", tenant, time.time_ns() // 1_000_000, asked)


class Responses:
    """The responses of one database. Another tenant's and one that is not there are the same ``UnknownJob``."""

    def __init__(self, annex: Annex) -> None:
        self._annex = annex

    async def keep(self, new: StoredResponse) -> None:
        """Write a response down.

        Raises:
            JobStoreError: it could not be written.
        """
        row = {
            "id": new.id, "tenant": new.tenant, "created_ms": new.created_ms, "job": new.job,
            "previous": new.asked.previous_response_id,
            "asked": new.asked.model_dump_json(by_alias=True, exclude_defaults=True),
            "body": None if new.body is None else new.body.model_dump_json(),
        }  # fmt: skip
        await self._annex.write(lambda connection: connection.execute(responses.insert().values(row)))

    async def find(self, id: str, tenant: str | None = None) -> StoredResponse:
        """A response.

        Args:
            id: its name.
            tenant: whose it must be; None for whoever sees all.

        Raises:
            UnknownJob: there is none of this name.
        """
        return await self._annex.read(lambda connection: _find(connection, id, tenant))

    async def conversation(self, last: str | None, tenant: str | None) -> list[InputItem]:
        """The turns up to a response, its own included; none for None.

        Raises:
            UnknownJob: there is none of this name, or one before it was deleted.
            JobStateConflict: one of them has not ended yet.
            UsageError: one of them came to nothing, or there are too many.
        """

        def follow(connection: sa.Connection) -> list[StoredResponse]:
            found: list[StoredResponse] = []
            id = last
            while id is not None:
                if len(found) == LONGEST_CONVERSATION:
                    raise UsageError(
                        f"previous_response_id: the conversation has more than {LONGEST_CONVERSATION} responses. "
                        "Begin another."
                    )
                found.append(_find(connection, id, tenant))
                id = found[-1].asked.previous_response_id
            return found[::-1]

        turns: list[InputItem] = []
        for response in await self._annex.read(follow):
            turns += [*response.asked.items, *_output(response)]
        return turns

    async def given(self, id: str, job: str) -> None:
        """Note which job does a response."""
        this = responses.update().where(responses.c.id == id).values(job=job)
        await self._annex.write(lambda connection: connection.execute(this))

    async def end(self, body: ResponseBody) -> bool:
        """Write how a response ended, unless that is known. Returns whether it was written."""
        this = responses.update().where(responses.c.id == body.id, responses.c.body.is_(None))
        text = body.model_dump_json()
        return await self._annex.write(lambda connection: connection.execute(this.values(body=text)).rowcount > 0)

    async def forget(self, id: str) -> None:
        """Delete a response."""
        this = responses.delete().where(responses.c.id == id)
        await self._annex.write(lambda connection: connection.execute(this))

    async def older_than(self, days: float) -> Sequence[StoredResponse]:
        """Some of those that were made longer ago."""
        before = time.time_ns() // 1_000_000 - int(days * _DAY_MS)
        wanted = sa.select(responses).where(responses.c.created_ms < before).limit(_RETIRED_AT_ONCE)
        return await self._annex.read(lambda c: [_stored(row) for row in c.execute(wanted).mappings().all()])


def _find(connection: sa.Connection, id: str, tenant: str | None) -> StoredResponse:
    wanted = sa.select(responses).where(responses.c.id == id)
    if tenant is not None:
        wanted = wanted.where(responses.c.tenant == tenant)
    row = connection.execute(wanted).mappings().first()
    if row is None:
        raise UnknownJob(f"There is no response '{id[:80]}': it was not stored, or deleted, or is too old.")
    return _stored(row)


def _stored(row: Any) -> StoredResponse:
    asked = ResponseRequest.model_validate_json(row["asked"])
    body = None if row["body"] is None else ResponseBody.model_validate_json(row["body"])
    return StoredResponse(row["id"], row["tenant"], row["created_ms"], asked, row["job"], body)


def _output(response: StoredResponse) -> list[InputItem]:
    if response.body is None:
        raise JobStateConflict(
            f"previous_response_id: the response '{response.id}' has not ended, or came to nothing. Wait for it, or go "
            "on from another."
        )
    if response.body.status not in ("completed", "incomplete"):
        raise UsageError(
            f"previous_response_id: the response '{response.id}' was {response.body.status}. Go on from another."
        )
    return response.body.turns()
