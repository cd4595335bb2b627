"""``agentflow webhooks``: try a receiver, see what was delivered, and what was not."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from agentflow.config import Settings, load_settings
from agentflow.errors import UsageError
from agentflow.jobs.opening import open_database, open_jobs
from agentflow.jobs.tenants import Tenants
from agentflow.server.opening import open_annex
from agentflow.server.webhooks.outbox import Outbox, secret_owner
from agentflow.server.webhooks.sending import Message, send

Value = TypeVar("Value")
_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml."
)
_TENANT = click.option(
    "--tenant", metavar="NAME", help="Whose secret signs; that of requests without a key if left out."
)


@click.group("webhooks")
def command() -> None:
    """Messages to your own server when a job ends or waits for a person."""


@command.command("test")
@click.argument("url")
@_TENANT
@_CONFIG
def test(url: str, tenant: str | None, config: Path | None) -> int:
    """Send a signed message to URL now, and say what it answered. Exit code 1 when it was not taken."""
    if importlib.util.find_spec("standardwebhooks") is None:
        raise UsageError("Webhooks need standardwebhooks. Install it with: pip install 'agentflow[server]'.")
    settings = load_settings(config)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    body = json.dumps({"type": "webhook.test", "timestamp": now, "data": {}})
    signing = _with_tenants(settings, lambda tenants: tenants.webhook_secrets(secret_owner(tenant)))
    message = Message(f"msg_{secrets.token_hex(12)}", url, body, signing)
    answer = asyncio.run(send(message, allow_private=settings.server.allow_private))
    click.echo(f"{'Taken' if answer.taken else 'Not taken'}: {answer.said}")
    return 0 if answer.taken else 1


@command.command("secret")
@_TENANT
@_CONFIG
def secret(tenant: str | None, config: Path | None) -> None:
    """Print the secret that webhooks are signed with: a receiver checks them with it."""
    owner = secret_owner(tenant)
    click.echo(_with_tenants(load_settings(config), lambda tenants: tenants.webhook_secrets(owner))[0])


@command.command("rotate")
@click.option("--drop-old", is_flag=True, help="The old secret signs no more: it became known.")
@_TENANT
@_CONFIG
def rotate(drop_old: bool, tenant: str | None, config: Path | None) -> None:
    """Make a new secret and print it. The old one signs too, until receivers know the new one: rotate again then."""
    owner = secret_owner(tenant)
    work = partial(Tenants.rotate_webhook_secret, name=owner, keep_old=not drop_old)
    click.echo(_with_tenants(load_settings(config), work))


@command.command("list")
@click.option("--dead", is_flag=True, help="Only those that were given up.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_CONFIG
def list_(dead: bool, as_json: bool, config: Path | None) -> None:
    """List deliveries, newest first."""
    found = _with_outbox(config, lambda outbox: outbox.list("dead" if dead else None))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        click.echo(f"{one.id}  {one.state}  {one.tries} tries  {one.answer or '-'}  {one.job}  {one.url}")
    if not found:
        click.echo("None." if dead else "Nothing was to be delivered yet.")


@command.command("retry")
@click.argument("id")
@_CONFIG
def retry(id: str, config: Path | None) -> None:
    """Deliver a message again, by its ID: a server that runs does it."""
    _with_outbox(config, lambda outbox: outbox.retry(id))
    click.echo(f"{id} is due again.")


def _with_tenants(settings: Settings, work: Callable[[Tenants], Awaitable[Value]]) -> Value:
    async def run() -> Value:
        tenants = Tenants(open_database(settings.jobs))
        try:
            return await work(tenants)
        finally:
            await tenants.aclose()

    return asyncio.run(run())


def _with_outbox(config: Path | None, work: Callable[[Outbox], Awaitable[Value]]) -> Value:
    async def run() -> Value:
        settings = load_settings(config)
        annex, tenants = open_annex(settings), Tenants(open_database(settings.jobs))
        async with open_jobs(settings) as jobs:
            try:
                return await work(Outbox(annex, jobs, tenants, allow_private=settings.server.allow_private))
            finally:
                await annex.aclose()
                await tenants.aclose()

    return asyncio.run(run())
