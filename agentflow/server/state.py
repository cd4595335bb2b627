"""What every request of one server process shares. Imports runtime, jobs, keys, store; ``app`` makes it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from agentflow.config import Settings
from agentflow.jobs.service import Jobs
from agentflow.runtime import Runtime
from agentflow.server.access import Door
from agentflow.server.metrics import Metrics
from agentflow.server.store import Store


@dataclass(frozen=True, slots=True)
class Server:
    """One server process at work.

    Args:
        settings: the configuration.
        runtime: opens chains.
        jobs: the jobs of the database.
        store: the server's own tables.
        door: admits requests.
        metrics: counts them.
        stopping: set when the process is asked to end: streams end then.
    """

    settings: Settings
    runtime: Runtime
    jobs: Jobs
    store: Store
    door: Door
    metrics: Metrics
    stopping: asyncio.Event


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


TheServer = Annotated[Server, Depends(_server)]
"""A parameter of this type is the server."""
