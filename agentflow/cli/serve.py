"""``agentflow serve``: the HTTP API."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import click

from agentflow.config import Settings, load_settings
from agentflow.errors import UsageError


@click.command("serve")
@click.option("--host", metavar="ADDRESS", help="Where to listen, instead of server.host. A public one needs a key.")
@click.option("--port", type=click.IntRange(0, 65_535), help="The port, instead of server.port; 0 takes a free one.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
def command(host: str | None, port: int | None, config: Path | None) -> None:
    """Serve the HTTP API until the process is asked to end.

    It listens at 127.0.0.1 and asks for no key until the first is made with: agentflow keys create.
    """
    for module in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"The server needs {module}. Install it with: pip install 'agentflow[server]'.")
    from agentflow.server.serving import serve

    asyncio.run(serve(_settings(config, host=host, port=port), announce=_announce))


def _settings(config: Path | None, **given: Any) -> Settings:
    settings = load_settings(config)
    chosen = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"server": settings.server.model_copy(update=chosen)})


def _announce(address: str) -> None:
    click.echo(f"agentflow serves at {address}")
