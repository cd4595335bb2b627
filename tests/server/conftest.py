"""One server process for the tests of a file, and models behind it that each test scripts anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.api import Api, Background, toml
from tests.servers.openai_server import ScriptedServer, ServerProcess


@pytest.fixture(scope="module")
def models(_openai_process: ServerProcess) -> ScriptedServer:
    return ScriptedServer(_openai_process)


@pytest.fixture(scope="module")
def folder(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of a file's tests lives."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "agentflow.toml").write_text(toml(models))
    return folder


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[Api]:
    """The server, without keys."""
    server = Api(folder)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def worker(folder: Path, api: Api) -> Iterator[Background]:
    """Who works on its jobs."""
    process = Background(folder, "worker")
    yield process
    process.kill()


@pytest.fixture
def http(api: Api, models: ScriptedServer, worker: Background) -> Iterator[httpx.Client]:
    """A client of the server, where no model answers: code does the work."""
    models.script({"*": [{"status": 400}]})
    with api.client() as client:
        yield client
