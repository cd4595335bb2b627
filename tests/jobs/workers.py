"""Workers and servers in processes of their own, started, stopped, killed and frozen by whoever asks.

A keeper has everything imported and forks a process on demand, so that a kill every second is cheap. Each runs the
command itself: ``agentflow worker``, ``agentflow serve``. What ends one is the keeper's to wait for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self


class Workers:
    """The keeper, from the test's side."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.log = folder / "workers.log"
        with self.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
            )
        self.alive: list[int] = []

    def start(self, *arguments: str) -> int:
        """Start a worker, and return its process id."""
        return self._start("worker", *arguments)

    def serve(self, port: int) -> int:
        """Start the server of the API on this port, and return its process id."""
        return self._start("serve", "--port", str(port))

    def end(self, pid: int, how: signal.Signals = signal.SIGKILL) -> int:
        """End a worker and wait until it is gone; gives its exit code, negative for a signal."""
        os.kill(pid, how)
        if how == signal.SIGTERM:
            os.kill(pid, signal.SIGCONT)
        return self.gone(pid)

    def gone(self, pid: int) -> int:
        """Wait until a worker is gone."""
        self.alive.remove(pid)
        return int(self._ask(["wait", str(pid)]))

    def _start(self, *arguments: str) -> int:
        pid = int(self._ask(["start", *arguments]))
        self.alive.append(pid)
        return pid

    def _ask(self, order: Sequence[str]) -> str:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(order) + "\n")
        self._keeper.stdin.flush()
        return self._keeper.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in tuple(self.alive):
            self.end(pid)
        self._keeper.communicate()


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if order[0] == "wait":
            _, status = os.waitpid(int(order[1]), 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        if order[1] == "serve":
            import agentflow.server.app
        pid = os.fork()
        if pid == 0:
            # Standard output is the keeper's word to the test.
            os.dup2(2, 1)
            sys.argv = ["agentflow", *order[1:]]
            from agentflow.cli.main import main as agentflow

            try:
                agentflow()
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(int(end.code or 0))
        print(pid, flush=True)


if __name__ == "__main__":
    import dbos  # noqa: F401 - so that no worker imports it
    import psycopg  # noqa: F401
    import sqlalchemy.dialects.postgresql
    import sqlalchemy.dialects.sqlite  # noqa: F401

    import agentflow.cli.worker
    import agentflow.jobs.dbos_engine  # noqa: F401

    main()
