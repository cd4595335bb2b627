"""What every request of one server process shares. Imports runtime, jobs, access; ``app`` makes it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from agentflow.budget.meter import Meter
from agentflow.config import Settings
from agentflow.errors import AgentflowError, BudgetExceeded
from agentflow.jobs.annex import Annex
from agentflow.jobs.collections.catalogue import Catalogue
from agentflow.jobs.collections.uploads import Uploads
from agentflow.jobs.service import Jobs
from agentflow.jobs.tenants import Tenants
from agentflow.runtime import Runtime
from agentflow.server.access import Door
from agentflow.server.metrics import Metrics
from agentflow.server.openai.stored import Responses
from agentflow.server.research.idempotency import Idempotency
from agentflow.server.webhooks.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Server:
    """One server process at work.

    Args:
        settings: the configuration.
        runtime: opens chains.
        jobs: the jobs of the database.
        annex: the server's own tables.
        tenants: limits and webhook secrets of tenants that were made by command.
        idempotency: keys of requests that were sent twice.
        webhooks: tells of jobs that end.
        catalogue: which files were uploaded.
        uploads: takes them in.
        responses: replies that OpenAI's clients asked to be kept.
        door: admits requests.
        local: pays for whoever sits at this machine and has no key.
        metrics: counts them.
        stopping: set when the process is asked to end: streams end then.
    """

    settings: Settings
    runtime: Runtime
    jobs: Jobs
    annex: Annex
    tenants: Tenants
    idempotency: Idempotency
    webhooks: Outbox
    catalogue: Catalogue
    uploads: Uploads
    responses: Responses
    door: Door
    local: Meter
    metrics: Metrics
    stopping: asyncio.Event

    def refused(self, error: AgentflowError) -> None:
        """Count what a budget had no room for."""
        if isinstance(error, BudgetExceeded):
            self.metrics.refused()


async def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


TheServer = Annotated[Server, Depends(_server)]
"""A parameter of this type is the server."""
