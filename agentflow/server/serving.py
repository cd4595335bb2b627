"""Listening: the app under uvicorn, with its bounds, until the process is asked to end. Imports app, uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Generator
from typing import Any, Final

import uvicorn

from agentflow.config import Settings
from agentflow.errors import UsageError
from agentflow.server.access import is_loopback
from agentflow.server.app import create_app
from agentflow.server.keys import Keys
from agentflow.server.opening import open_annex
from agentflow.server.protocol import patient_protocol

_KEEP_ALIVE_S: Final = 15
_BACKLOG: Final = 2_048
# Files that are none of the connections: databases, uploads, models.
_OWN_FILES: Final = 256


class _Uvicorn(uvicorn.Server):
    """uvicorn, which tells streams to end before it waits for them."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """End in order at the first signal, at once at the second; and end well, which uvicorn itself does not."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what can be ended, then wait for the rest."""
        self._stopping.set()
        await super().shutdown(sockets)


async def serve(settings: Settings, *, announce: Any = print) -> None:
    """Serve until SIGINT or SIGTERM; requests under way may end.

    Args:
        settings: the configuration.
        announce: told the address once it is served.

    Raises:
        UsageError: the address is public and there is no key, or it cannot be listened at.
        JobStoreError: the database cannot be used.
    """
    host, port = settings.server.host, settings.server.port
    local = is_loopback(host)
    await _check_keys(settings, host, local=local)
    listening = _listen(host, port)
    _allow_files(settings.server.max_connections + _OWN_FILES)
    app = create_app(settings, open=local)
    config = uvicorn.Config(
        app, http=patient_protocol(settings.server), ws="none", lifespan="on", log_config=None,
        access_log=False, server_header=False, proxy_headers=False,
        h11_max_incomplete_event_size=settings.server.max_header_kb * 1_024,
        timeout_keep_alive=_KEEP_ALIVE_S, backlog=_BACKLOG,
        timeout_graceful_shutdown=settings.server.shutdown_s,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = _Uvicorn(config, app.state.stopping)
    shown = f"[{host}]" if ":" in host else host
    announce(f"http://{shown}:{listening.getsockname()[1]}")
    with listening:
        await server.serve([listening])


async def _check_keys(settings: Settings, host: str, *, local: bool) -> None:
    annex = open_annex(settings)
    try:
        if not local and not await Keys(annex).any():
            raise UsageError(
                f"{host} can be reached from other machines, and there is no key: anybody could spend. Make one with: "
                "agentflow keys create NAME, or listen at 127.0.0.1."
            )
    finally:
        await annex.aclose()


def _allow_files(wanted: int) -> None:
    """Have as many open files as connections may need, as far as this process may say so itself."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != resource.RLIM_INFINITY and now < wanted:
        wanted = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(found[4][:2], family=found[0], backlog=_BACKLOG, reuse_port=False)
        # Connections inherit it: an answer's body does not wait until its head was acknowledged, which takes 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise UsageError(
            f"Cannot listen at {host}, port {port}: {error.strerror or error}. Choose others with --host and --port."
        ) from error
