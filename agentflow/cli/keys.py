"""``agentflow keys``: who may call the HTTP API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click
from pydantic import ValidationError

from agentflow.config import TenantSettings, load_settings
from agentflow.errors import UsageError
from agentflow.jobs.opening import open_database
from agentflow.jobs.tenants import Tenants
from agentflow.server.keys import SCOPES, Key, Keys, Scope
from agentflow.server.opening import open_annex

Value = TypeVar("Value")
_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml."
)
_DAY_MS = 86_400_000


@click.group("keys")
def command() -> None:
    """Make, list and revoke the keys of the HTTP API."""


@command.command("create")
@click.argument("name")
@click.option("--tenant", metavar="NAME", help="Who pays, and whose jobs the key sees; the key's own name if left out.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, default=("submit", "read"),
              help="What it may do; may be given more than once.", show_default=True)  # fmt: skip
@click.option("--requests-per-minute", type=click.IntRange(1), help="Its rate, instead of server.requests_per_minute.")
@click.option("--day-usd", metavar="DOLLARS", help="Most dollars of the tenant's day.")
@click.option("--month-usd", metavar="DOLLARS", help="Most dollars of the tenant's month.")
@click.option("--day-joules", metavar="JOULES", help="Most joules of the tenant's day.")
@click.option("--month-joules", metavar="JOULES", help="Most joules of the tenant's month.")
@click.option("--day-tokens", metavar="TOKENS", help="Most tokens of the tenant's day.")
@click.option("--month-tokens", metavar="TOKENS", help="Most tokens of the tenant's month.")
@click.option("--days", type=click.IntRange(1, 36_500), help="For how long it is good; for ever if left out.")
@_CONFIG
def create(
    name: str, tenant: str | None, scopes: tuple[Scope, ...], requests_per_minute: int | None, days: int | None,
    config: Path | None, **limits: str | None,
) -> None:  # fmt: skip
    """Make a key called NAME and show it, once.

    Limits are those of its tenant, all whose keys share them; given again, they take the place of the earlier ones.
    A tenant of the configuration has its limits there.
    """
    settings = load_settings(config)
    given = _limits(limits)
    if given is not None and (tenant or name) in settings.tenants:
        raise UsageError(f"The tenant '{tenant or name}' has its limits in the configuration. Change them there.")

    async def work(keys: Keys) -> str:
        expires_ms = None if days is None else int(datetime.now(UTC).timestamp() * 1000) + days * _DAY_MS
        key, token = await keys.create(
            name, tenant or name, scopes, requests_per_minute=requests_per_minute, expires_ms=expires_ms
        )
        tenants = Tenants(open_database(settings.jobs))
        try:
            await tenants.keep(key.tenant, given)
        finally:
            await tenants.aclose()
        return token

    click.echo(_with_keys(config, work))
    click.echo("This is shown once; only its hash is kept.", err=True)
    if given is not None:
        click.echo(
            "A server or worker that knows the tenant already holds to new limits from its next start.", err=True
        )


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_CONFIG
def list_(as_json: bool, config: Path | None) -> None:
    """List the keys, without their secrets."""
    found = _with_keys(config, lambda keys: keys.list())
    lines = [_line(key) for key in found]
    if as_json:
        click.echo(json.dumps(lines, indent=2))
        return
    for line in lines:
        click.echo("  ".join(str(value or "-") for value in line.values()))
    if not lines:
        click.echo("There is no key yet. Make one with: agentflow keys create NAME.")


@command.command("revoke")
@click.argument("id")
@_CONFIG
def revoke(id: str, config: Path | None) -> None:
    """End a key for good, by its ID; a server that runs follows within two seconds."""
    key = _with_keys(config, lambda keys: keys.revoke(id))
    click.echo(f"Revoked: {key.id} ({key.name})")


def _limits(given: Mapping[str, str | None]) -> TenantSettings | None:
    """The limits of the command line, ``day_usd`` and so on; None when there are none."""
    tables: dict[str, dict[str, str]] = {}
    for name, value in given.items():
        if value is not None:
            per, _, currency = name.partition("_")
            tables.setdefault(per, {})[currency] = value
    try:
        return TenantSettings.model_validate(tables) if tables else None
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{'-'.join(str(part) for part in first['loc'])}: {first['msg']}.") from error


def _with_keys(config: Path | None, work: Callable[[Keys], Awaitable[Value]]) -> Value:
    async def run() -> Value:
        annex = open_annex(load_settings(config))
        try:
            return await work(Keys(annex))
        finally:
            await annex.aclose()

    return asyncio.run(run())


def _line(key: Key) -> dict[str, str | None]:
    state = "revoked" if key.revoked_ms is not None else "expired" if _past(key.expires_ms) else "good"
    return {
        "id": key.id, "name": key.name, "tenant": key.tenant, "scopes": ",".join(sorted(key.scopes)), "state": state,
        "created": _date(key.created_ms), "expires": None if key.expires_ms is None else _date(key.expires_ms),
    }  # fmt: skip


def _past(ms: int | None) -> bool:
    return ms is not None and ms <= datetime.now(UTC).timestamp() * 1000


def _date(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%d}"
