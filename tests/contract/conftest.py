"""The backends that the contract is tried on: ``subject`` is each of them in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.subjects import LARGE, OVER_HTTP, SCRIPTED, TINY, Subject, over_http, tiny, without_server
from tests.servers.openai_server import ScriptedServer, ServerProcess
from tests.servers.remade import remade


@pytest.fixture(scope="session")
def llama_address() -> Iterator[str]:
    process = ServerProcess("tests.servers.llama")
    yield process.address
    process.stop()


@pytest.fixture(scope="session")
def patient_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context so long that it can compute for longer than a test takes to leave."""
    return remade(LARGE, tmp_path_factory.mktemp("models") / "patient.gguf", context_length=8192)


@pytest.fixture(params=[*SCRIPTED, *TINY])
async def subject(
    request: pytest.FixtureRequest, scripted_server: ScriptedServer, tmp_path: Path
) -> AsyncIterator[Subject]:
    kind: str = request.param
    if kind in OVER_HTTP:
        found = over_http(kind, scripted_server, tmp_path)
    elif kind in SCRIPTED:
        found = without_server(kind, tmp_path)
    else:
        address = request.getfixturevalue("llama_address") if kind == "llamacpp-http" else ""
        found = tiny(kind, address, request.getfixturevalue("patient_model"))
    yield found
    await found.backend.aclose()
    await found.backend.aclose()
