"""Webhooks: signed, retried, never to private addresses, left for a person when nobody takes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from agentflow.config import Settings
from agentflow.jobs.job import JobSources, JobSpec
from agentflow.jobs.opening import open_database, open_jobs
from agentflow.jobs.service import Jobs
from agentflow.jobs.tenants import Tenants
from agentflow.server.opening import open_annex
from agentflow.server.tables import delivery
from agentflow.server.webhooks.outbox import MOST_TRIES, Outbox
from agentflow.server.webhooks.sending import Message, send
from tests.servers.api import run
from tests.servers.openai_server import ServerProcess

SPEC = JobSpec(query="What?", sources=JobSources(origins=("nothing.md",)), tenant="acme")


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    process = ServerProcess("tests.servers.receiver")
    yield process.address
    process.stop()


def script(receiver: str, *answers: int) -> None:
    httpx.post(f"{receiver}/answers", json=answers)


def heard(receiver: str) -> list[dict[str, Any]]:
    return httpx.get(f"{receiver}/heard").json()


@pytest.fixture
async def office(here: Path) -> AsyncIterator[tuple[Outbox, Jobs, Tenants]]:
    settings = Settings()
    annex, tenants = open_annex(settings), Tenants(open_database(settings.jobs))
    async with open_jobs(settings) as jobs:
        yield Outbox(annex, jobs, tenants, allow_private=True), jobs, tenants
    await annex.aclose()
    await tenants.aclose()


async def hurry(outbox: Outbox) -> None:
    """What would be due later is due now."""
    await outbox._annex.write(lambda c: c.execute(delivery.update().values(due_ms=0)))


async def test_the_end_of_a_job_is_told_once_signed(office: tuple[Outbox, Jobs, Tenants], receiver: str) -> None:
    outbox, jobs, tenants = office
    script(receiver)
    job = await jobs.submit(SPEC)
    await outbox.watch(job.id, "acme", f"{receiver}/hook")
    await outbox.watch(job.id, "acme", f"{receiver}/elsewhere")
    await outbox.step()
    assert heard(receiver) == [], "it has not ended yet"
    await jobs.cancel(job.id)
    for _ in range(3):
        await outbox.step()
    (message,) = heard(receiver)
    told = Webhook((await tenants.webhook_secrets("acme"))[0]).verify(message["body"], message["headers"])
    assert told["type"] == "research.cancelled" and told["data"]["id"] == job.id
    assert "output" not in told["data"], "what was found is not told"
    (sent,) = await outbox.list()
    assert (sent.state, sent.tries, sent.answer) == ("delivered", 1, "HTTP 204")


async def test_a_receiver_that_fails_is_tried_again_with_the_same_id(
    office: tuple[Outbox, Jobs, Tenants], receiver: str
) -> None:
    outbox, jobs, _ = office
    script(receiver, 500, 302, 200)
    job = await jobs.submit(SPEC)
    await outbox.watch(job.id, "acme", f"{receiver}/hook")
    await jobs.cancel(job.id)
    await outbox.step()
    (waiting,) = await outbox.list("due")
    assert waiting.tries == 1 and waiting.answer == "HTTP 500"
    await outbox.step()
    assert len(heard(receiver)) == 1, "not before its time"
    for _ in range(2):
        await hurry(outbox)
        await outbox.step()
    assert len({message["headers"]["webhook-id"] for message in heard(receiver)}) == 1
    assert [one.state for one in await outbox.list()] == ["delivered"]


async def test_what_nobody_takes_is_kept_for_a_person(office: tuple[Outbox, Jobs, Tenants], receiver: str) -> None:
    outbox, jobs, _ = office
    script(receiver, *[503] * MOST_TRIES, 200)
    job = await jobs.submit(SPEC)
    await outbox.watch(job.id, "acme", f"{receiver}/hook")
    await jobs.cancel(job.id)
    await outbox.step()
    for _ in range(MOST_TRIES + 2):
        await hurry(outbox)
        await outbox.step()
    (dead,) = await outbox.list("dead")
    assert dead.tries == MOST_TRIES == len(heard(receiver))
    await outbox.retry(dead.id)
    await outbox.step()
    assert [one.state for one in await outbox.list()] == ["delivered"]


async def test_two_servers_deliver_once(office: tuple[Outbox, Jobs, Tenants], receiver: str) -> None:
    outbox, jobs, tenants = office
    script(receiver)
    other = Outbox(open_annex(Settings()), jobs, tenants, allow_private=True)
    ids = [(await jobs.submit(SPEC)).id for _ in range(5)]
    for id in ids:
        await outbox.watch(id, "acme", f"{receiver}/hook")
        await jobs.cancel(id)
    await asyncio.gather(outbox.step(), other.step(), outbox.step(), other.step())
    assert sorted(json.loads(m["body"])["data"]["id"] for m in heard(receiver)) == sorted(ids)
    await other._annex.aclose()


async def test_jobs_that_go_on_hide_none_that_has_ended(office: tuple[Outbox, Jobs, Tenants], receiver: str) -> None:
    outbox, jobs, _ = office
    script(receiver)
    for _ in range(210):
        await outbox.watch((await jobs.submit(SPEC)).id, "busy", f"{receiver}/hook")
    last = await jobs.submit(SPEC)
    await outbox.watch(last.id, "acme", f"{receiver}/hook")
    await jobs.cancel(last.id)
    await outbox.step()
    assert [json.loads(message["body"])["data"]["id"] for message in heard(receiver)] == [last.id]


async def test_a_receiver_that_hangs_keeps_no_other_tenant_waiting(
    office: tuple[Outbox, Jobs, Tenants], receiver: str
) -> None:
    outbox, jobs, _ = office
    script(receiver)
    hanging: list[asyncio.StreamWriter] = []
    dialled = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hanging.append(writer)
        dialled.set()

    hole = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = hole.sockets[0].getsockname()[1]
    running = asyncio.create_task(outbox.run())
    for _ in range(40):
        job = await jobs.submit(SPEC)
        await outbox.watch(job.id, "slow", f"http://127.0.0.1:{port}/hook")
        await jobs.cancel(job.id)
    # No attempt at the hole has ended by now: each takes ten seconds.
    await dialled.wait()
    job = await jobs.submit(SPEC)
    await outbox.watch(job.id, "acme", f"{receiver}/hook")
    await jobs.cancel(job.id)
    tried: list[tuple[str, str]] = []
    while not tried:
        tried = [(one.tenant, one.state) for one in await outbox.list() if one.tries]
        await asyncio.sleep(0.01)
    assert tried == [("acme", "delivered")]
    running.cancel()
    await asyncio.wait([running])
    hole.close()
    for writer in hanging:
        writer.close()


async def test_what_was_told_of_a_job_goes_with_it(office: tuple[Outbox, Jobs, Tenants], receiver: str) -> None:
    outbox, jobs, _ = office
    script(receiver)
    kept, gone = [await jobs.submit(SPEC) for _ in range(2)]
    for job in (kept, gone):
        await outbox.watch(job.id, "acme", f"{receiver}/hook")
        await jobs.cancel(job.id)
    await outbox.step()
    await jobs.delete(gone.id)
    await outbox.sweep()
    assert [one.job for one in await outbox.list()] == [kept.id]


async def test_a_secret_is_changed_without_a_message_that_nobody_can_check(
    office: tuple[Outbox, Jobs, Tenants], receiver: str
) -> None:
    outbox, jobs, tenants = office
    (old,) = await tenants.webhook_secrets("acme")
    new = await tenants.rotate_webhook_secret("acme")
    assert await tenants.webhook_secrets("acme") == (new, old)

    async def tell() -> dict[str, Any]:
        script(receiver)
        job = await jobs.submit(SPEC)
        await outbox.watch(job.id, "acme", f"{receiver}/hook")
        await jobs.cancel(job.id)
        await outbox.step()
        return heard(receiver)[0]

    message = await tell()
    for secret in (old, new):
        assert Webhook(secret).verify(message["body"], message["headers"])["type"] == "research.cancelled"
    newest = await tenants.rotate_webhook_secret("acme", keep_old=False)
    message = await tell()
    assert Webhook(newest).verify(message["body"], message["headers"])
    for secret in (old, new):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(message["body"], message["headers"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "2130706433", "127.1", "0x7f.1"]
)
async def test_private_addresses_are_not_dialled(receiver: str, host: str) -> None:
    script(receiver)
    port = receiver.rsplit(":", 1)[1]
    message = Message("msg_1", f"http://{host}:{port}/hook", "{}", ("whsec_c2VjcmV0",))
    answer = await send(message, allow_private=False)
    assert not answer.taken and heard(receiver) == []


def test_a_receiver_can_be_tried_from_the_command_line(tmp_path: Path, receiver: str) -> None:
    script(receiver, 200, 500)
    refused = run(tmp_path, "webhooks", "test", f"{receiver}/hook", check=False)
    assert refused.returncode == 1 and "loopback" in refused.stdout
    (tmp_path / "agentflow.toml").write_text("[server]\nallow_private = true\n")
    assert run(tmp_path, "webhooks", "test", f"{receiver}/hook").stdout == "Taken: HTTP 200\n"
    secret = run(tmp_path, "webhooks", "secret").stdout.strip()
    (message,) = heard(receiver)
    assert Webhook(secret).verify(message["body"], message["headers"])["type"] == "webhook.test"
    rotated = run(tmp_path, "webhooks", "rotate").stdout.strip()
    assert rotated.startswith("whsec_") and rotated != secret
    assert run(tmp_path, "webhooks", "secret").stdout.strip() == rotated
    assert run(tmp_path, "webhooks", "list", "--dead").stdout == "None.\n"
    assert "There is no delivery" in run(tmp_path, "webhooks", "retry", "msg_x", check=False).stderr
