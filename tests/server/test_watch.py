"""``agentflow jobs watch`` at a real terminal: the same live view of a job here and of one behind a server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Self

import pytest

from tests.server.conftest import toml
from tests.servers.api import PROJECT, Api, Background, run
from tests.servers.openai_server import ScriptedServer

pytestmark = pytest.mark.timeout(150)
TIDES = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest on Earth.\n"
QUESTION = "How high does the tide rise in the Bay of Fundy?"


class Terminal:
    """A command at a terminal of 120 by 40, and everything that it draws."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_", "CI"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentflow", *arguments], cwd=folder, stdin=slave, stdout=slave, stderr=slave,
            env={**kept, "PYTHONPATH": str(PROJECT), "TERM": "xterm"},
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def until(self, words: str) -> Self:
        """Read on until it has drawn these words, or has ended."""
        with contextlib.suppress(OSError):
            while words not in self.seen:
                self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(self._master, 65_536).decode())
        return self

    def end(self) -> int:
        self.until("\0")
        os.close(self._master)
        return self.process.wait()


@pytest.fixture
def here(models: ScriptedServer, tmp_path: Path) -> Path:
    models.script({"*": [{"status": 400}]})
    (tmp_path / "agentflow.toml").write_text(toml(models))
    (tmp_path / "tides.md").write_text(TIDES)
    return tmp_path


def test_a_job_behind_a_server_is_watched_over_its_restart(here: Path) -> None:
    api = Api(here)
    jobs = ("jobs", "--server", api.url)
    id = run(here, *jobs, "submit", QUESTION, "tides.md").stdout.split()[0]
    watching = Terminal(here, *jobs, "watch", id).until("queued")
    api.kill()
    api = Api(here, "--port", api.url.rsplit(":", 1)[1])
    worker = Background(here, "worker")
    try:
        assert watching.end() == 0, watching.seen
    finally:
        worker.kill()
        api.kill()
    assert watching.seen.rstrip().splitlines()[-1] == f"{id} completed (satisfied)"
    for words in ("sub-agent", "synthesis", "retrieval-1", "extractive synthesiser", "supported:", "watched for"):
        assert words in watching.seen, words


def test_a_job_of_this_machine_has_the_same_view(here: Path) -> None:
    id = run(here, "jobs", "submit", QUESTION, "tides.md").stdout.split()[0]
    watching = Terminal(here, "jobs", "watch", id).until("queued")
    worker = Background(here, "worker")
    try:
        assert watching.end() == 0, watching.seen
    finally:
        worker.kill()
    assert watching.seen.rstrip().splitlines()[-1] == f"{id} completed (satisfied)"
    assert "sub-agent" in watching.seen and "synthesis" in watching.seen
    again = Terminal(here, "jobs", "watch", id, "--lines")
    assert again.end() == 0 and "sub-agent" not in again.seen and " state " in again.seen
