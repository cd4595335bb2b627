"""Fixtures shared by the whole suite: servers in processes of their own, the tiny rungs, a clean environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers.openai_server import ScriptedServer, ServerProcess

RUNGS = Path(__file__).parent / "fixtures" / "rungs"
PROJECT = Path(__file__).parents[1]
DATA = PROJECT.parent / "shared" / "data" / "research"

settings.register_profile("project", deadline=None, max_examples=60)
settings.load_profile("project")


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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
