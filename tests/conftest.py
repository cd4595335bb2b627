"""Fixtures shared by the whole suite: servers in processes of their own, the tiny rungs, a clean environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.servers.openai_server import ScriptedServer, ServerProcess
from tests.servers.postgres import NONE_HERE, PostgresServer, programs

if TYPE_CHECKING:
    from agentflow.budget.ledger import Ledger

RUNGS = Path(__file__).parent / "fixtures" / "rungs"
PROJECT = Path(__file__).parents[1]
DATA = PROJECT.parent / "shared" / "data" / "research"

settings.register_profile("project", deadline=None, max_examples=60)
settings.load_profile("project")


def pytest_configure() -> None:
    """Say that there is no event loop yet: else pytest-asyncio makes one, leaves it open, and some test is blamed."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("AGENTFLOW_", "OTEL_")) and n != "AGENTFLOW_REQUIRE_BROWSER"]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _openai_process() -> Iterator[ServerProcess]:
    process = ServerProcess("tests.servers.openai_server")
    yield process
    process.stop()


@pytest.fixture
def scripted_server(_openai_process: ServerProcess) -> ScriptedServer:
    return ScriptedServer(_openai_process)


@pytest.fixture(scope="session")
def pages() -> Iterator[str]:
    process = ServerProcess("tests.servers.pages")
    yield process.address
    process.stop()


@pytest.fixture(scope="session")
def _postgres_process() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip(NONE_HERE)
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def postgres(_postgres_process: PostgresServer) -> PostgresServer:
    """A running PostgreSQL that this test may stop, restart and kill: no other worker of the suite shares it."""
    _postgres_process.start()
    return _postgres_process


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty database of this test's own."""
    with postgres.fresh_database() as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """Every kind of ledger, one after another: what is tried on this is tried on all of them."""
    from agentflow.budget.ledger import MemoryLedger
    from agentflow.budget.ledger.postgres import postgres_ledger
    from agentflow.budget.ledger.sqlite import sqlite_ledger

    if request.param == "memory":
        it: Ledger = MemoryLedger()
    elif request.param == "sqlite":
        it = sqlite_ledger(tmp_path / "ledger.db")
    else:
        it = postgres_ledger(request.getfixturevalue("postgres_url"))
    yield it
    await it.aclose()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
