"""The HTTP API in a process of its own, as a user starts it: ``agentflow serve`` with a configuration file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.servers.openai_server import ScriptedServer

PROJECT = Path(__file__).parents[2]


def toml(server: ScriptedServer, more: str = "") -> str:
    """A configuration with two models on a scripted server, and a cascade over both."""
    model = f'backend = "openai"\nbase_url = "{server.url}"\nretries = 0\nenergy = {{ kind = "remote" }}\n'
    return f"""
[models.small]
{model}price = {{ input = 1, output = 2 }}
[models.large]
{model}price = {{ input = 10, output = 20 }}
[cascades.default]
rungs = ["code", "small", "large"]
[cascades.careful]
rungs = ["large"]
{more}"""


def run(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line in this folder."""
    command = [sys.executable, "-m", "agentflow", *arguments]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=50)
    assert not check or done.returncode == 0, done.stderr
    return done


class Program:
    """A command of agentflow that keeps running, and says one line once it is ready."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "agentflow", *arguments]
        self.process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()
        if not self.said:
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read())

    def kill(self) -> None:
        self.process.kill()
        self._close()

    def stop(self) -> tuple[int, str]:
        """End it as a service manager does: its exit code, and what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=40)
        return self.process.returncode, said

    def _close(self) -> None:
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Api(Program):
    """The server; ``url`` is where it listens."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        super().__init__(folder, "serve", "--port", "0", *arguments)
        self.folder = folder
        self.url = self.said.rsplit(" ", 1)[-1]

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **more)


def key(folder: Path, name: str, *options: str) -> str:
    """A new key."""
    return run(folder, "keys", "create", name, *options).stdout.strip()


def keys(folder: Path) -> list[dict[str, Any]]:
    return json.loads(run(folder, "keys", "list", "--json").stdout)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_"))}
    return {**kept, "PYTHONPATH": str(PROJECT)}


class Background:
    """A command of agentflow that keeps running, and need not say when it is ready."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "agentflow", *arguments]
        self._log = (folder / f"{arguments[0]}.log").open("ab")
        self.process = subprocess.Popen(command, cwd=folder, env=_environment(), stdout=self._log, stderr=self._log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()
