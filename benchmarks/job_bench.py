"""One engine's jobs on the bench: a folder, a database, a model server that counts, and processes to kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentflow.budget.ledger import Entry, EntryFilter, open_ledger
from agentflow.budget.ledger.durable import DurableLedger
from agentflow.config import load_settings
from agentflow.jobs.service import Jobs
from benchmarks.job_found import Found, Size
from tests.jobs.places import Place, make_place
from tests.jobs.workers import Workers
from tests.servers.counting import CountingServer
from tests.servers.postgres import PostgresServer

SOURCE = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest on Earth.\n"


@dataclass
class Bench:
    """Where one engine is measured, and what was found."""

    place: Place
    counting: CountingServer
    size: Size
    keeper: Workers
    found: Found = field(default_factory=Found)

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[tuple[Workers, Jobs]]:
        """Processes that end with the block, and the jobs they work on."""
        async with self.place.jobs() as jobs:
            try:
                yield self.keeper, jobs
            finally:
                for pid in tuple(self.keeper.alive):
                    await asyncio.to_thread(self.keeper.end, pid)

    async def serve(self, workers: Workers, port: int) -> int:
        """Start a server, and wait until it answers."""
        pid = workers.serve(port)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return pid
                await asyncio.sleep(0.02)

    async def entries(self, ids: Sequence[str]) -> dict[str, list[Entry]]:
        """What the ledger has of each of these jobs."""
        ledger = open_ledger(self.place.settings.ledger)
        assert isinstance(ledger, DurableLedger)
        try:
            return {id: list(await ledger.entries(EntryFilter(job=id))) for id in ids}
        finally:
            await ledger.aclose()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def benches(engines: Sequence[str], counting: CountingServer, size: Size) -> Iterator[tuple[str, Bench]]:
    """A bench for each engine, PostgreSQL with a server of its own; all of it is gone afterwards."""
    with contextlib.ExitStack() as stack:
        for engine in engines:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentflow-jobs-")))
            url = None
            if engine == "postgres":
                server = PostgresServer()
                stack.callback(server.close)
                url = stack.enter_context(server.fresh_database())
                os.environ["TEST_URL"] = url
            place = make_place(folder, counting.url, url, worker_deaths=1000)
            file = folder / "agentflow.toml"
            file.write_text(file.read_text() + "[server]\nallow_paths = true\n")
            (folder / "tides.md").write_text(SOURCE)
            place.settings = load_settings(file)
            # One for all steps: it takes seconds to import what its processes begin with.
            with Workers(folder, place.environment) as keeper:
                yield engine, Bench(place, counting, size, keeper)
