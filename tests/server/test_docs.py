"""docs/calls.md: it has every operation of the OpenAPI document, and all that it shows runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.api import PROJECT, Api, Background, key
from tests.servers.openai_server import ScriptedServer

PAGE = (PROJECT / "docs" / "calls.md").read_text("utf-8")
TIDES = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest on Earth.\n"
pytestmark = pytest.mark.timeout(200)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def token(folder: Path) -> str:
    return key(folder, "docs", "--scope", "admin", "--requests-per-minute", "6000")


@pytest.fixture(scope="module")
def api(folder: Path, models: ScriptedServer, token: str) -> Iterator[Api]:
    """A server with a worker beside it; the dearer model alone answers."""
    models.script({"small": [{"status": 400}], "large": [{"text": "Ticket 2."}]})
    (folder / "tides.md").write_text(TIDES)
    server, worker = Api(folder), Background(folder, "worker")
    yield server
    worker.kill()
    server.kill()


def _run(command: list[str], program: str, folder: Path) -> None:
    done = subprocess.run(
        command, input=program, capture_output=True, text=True, timeout=170, cwd=folder, check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _here(program: str, api: Api, token: str) -> str:
    """The program for this server, with this key."""
    return program.replace("http://127.0.0.1:8321", api.url).replace("af_...", token)


def test_every_operation_is_shown_with_curl_and_in_python(api: Api) -> None:
    with api.client() as http:
        paths = http.get("/openapi.json").json()["paths"]
    wanted = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    sections = PAGE.split("\n### ")[1:]
    shown = [section.split("`")[1] for section in sections]
    assert sorted(shown) == sorted(wanted), sorted(wanted.symmetric_difference(shown))
    for section in sections:
        assert re.search("^```(bash|sh)\n", section, re.M) and re.search("^```(python|py)\n", section, re.M), section


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_what_is_shown_with_curl_runs(api: Api, token: str) -> None:
    _run(["bash", "-eu", "-o", "pipefail"], _here("\n".join(blocks("bash")), api, token), api.folder)


def test_what_is_shown_in_python_runs(api: Api, token: str) -> None:
    _run([sys.executable, "-"], _here("\n".join(blocks("python")), api, token), api.folder)
