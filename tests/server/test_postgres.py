"""What the server keeps, in PostgreSQL: the same as in SQLite, with two servers at once."""

from __future__ import annotations

import asyncio

import pytest

from agentflow.config import TenantSettings
from agentflow.errors import UnknownJob
from agentflow.jobs.annex import Annex
from agentflow.jobs.collections.catalogue import Catalogue
from agentflow.jobs.database import Database
from agentflow.jobs.tenants import Tenants
from agentflow.server.keys import Keys
from agentflow.server.openai.response_bodies import ResponseRequest
from agentflow.server.openai.stored import Responses, new_response
from agentflow.server.research.idempotency import Idempotency
from agentflow.server.tables import metadata

pytestmark = pytest.mark.timeout(150)


async def test_two_servers_share_keys_tenants_and_idempotency(postgres_url: str) -> None:
    one, two = (Annex(Database(postgres_url), metadata) for _ in range(2))
    tenants = [Tenants(Database(postgres_url)) for _ in range(2)]
    shelves = [Catalogue(Database(postgres_url)) for _ in range(2)]
    try:
        (_, token), _ = await asyncio.gather(Keys(one).create("acme", "acme", ["read"]), Keys(two).any())
        found = await Keys(two).find(token)
        assert found is not None and found.scopes == {"read"}
        await Keys(two).revoke(found.id)
        assert await Keys(one).find(token) is None and await Keys(one).any()

        day = TenantSettings.model_validate({"day": {"usd": "5"}})
        await asyncio.gather(*(each.keep("acme", day) for each in tenants[:1]), tenants[1].webhook_secrets("acme"))
        assert await tenants[1].limits("acme") == day and await tenants[1].limits("ghost") is None
        assert await tenants[0].webhook_secrets("acme") == await tenants[1].webhook_secrets("acme")

        names = await asyncio.gather(*(Idempotency(annex).name("acme", "k") for annex in (one, two, one, two)))
        assert len(set(names)) == 1 and names[0] != await Idempotency(one).name("rival", "k")

        made = await shelves[0].create("acme", "tides", 10)
        assert [each.id for each in await shelves[1].list("acme")] == [made.id] and await shelves[1].list("rival") == []
    finally:
        for each in (one, two, *tenants, *shelves):
            await each.aclose()


async def test_how_a_response_ended_is_written_once(postgres_url: str) -> None:
    annexes = [Annex(Database(postgres_url), metadata) for _ in range(2)]
    kept = [Responses(annex) for annex in annexes]
    try:
        asked = ResponseRequest.model_validate({"model": "small", "input": "How high?", "background": True}).kept({})
        new = new_response("acme", asked)
        await kept[0].keep(new)
        ends = [new.standing("completed"), new.standing("cancelled")]
        assert sum(await asyncio.gather(*(each.end(body) for each, body in zip(kept, ends, strict=True)))) == 1
        body = (await kept[0].find(new.id, "acme")).body
        assert body is not None and body == (await kept[1].find(new.id, "acme")).body
        with pytest.raises(UnknownJob):
            await kept[1].find(new.id, "rival")
        assert [one.id for one in await kept[1].older_than(-1.0)] == [new.id]
        await kept[1].forget(new.id)
        assert not await kept[0].end(body)
    finally:
        for annex in annexes:
            await annex.aclose()
