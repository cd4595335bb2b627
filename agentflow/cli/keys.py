"""``agentflow keys``: who may call the HTTP API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from agentflow.config import load_settings
from agentflow.server.keys import SCOPES, Key, Keys, Scope
from agentflow.server.opening import open_store

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
@click.option("--days", type=click.IntRange(1, 36_500), help="For how long it is good; for ever if left out.")
@_CONFIG
def create(
    name: str, tenant: str | None, scopes: tuple[Scope, ...], requests_per_minute: int | None, days: int | None,
    config: Path | None,
) -> None:  # fmt: skip
    """Make a key called NAME and show it, once."""

    async def work(keys: Keys) -> str:
        expires_ms = None if days is None else int(datetime.now(UTC).timestamp() * 1000) + days * _DAY_MS
        _, token = await keys.create(
            name, tenant or name, scopes, requests_per_minute=requests_per_minute, expires_ms=expires_ms
        )
        return token

    click.echo(_with_keys(config, work))
    click.echo("This is shown once; only its hash is kept.", err=True)


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


def _with_keys(config: Path | None, work: Callable[[Keys], Awaitable[Value]]) -> Value:
    async def run() -> Value:
        store = open_store(load_settings(config))
        try:
            return await work(Keys(store))
        finally:
            await store.aclose()

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
