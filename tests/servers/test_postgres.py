from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import PROJECT
from tests.servers.postgres import NONE_HERE, PostgresServer, programs

if programs() is None:
    pytest.skip(NONE_HERE, allow_module_level=True)

START_AND_TELL = """
import sys
from tests.servers.postgres import PostgresServer
print(PostgresServer().folder, flush=True)
sys.stdin.read()
"""


def postmaster(server: PostgresServer) -> int:
    return int((server.folder / "data" / "postmaster.pid").read_text().split()[0])


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_starts_takes_two_connections_at_once_and_leaves_no_process_and_no_folder() -> None:
    server = PostgresServer()
    with psycopg.connect(server.url()) as one, psycopg.connect(server.url()) as two:
        one.execute("SELECT pg_advisory_lock(1)")
        assert two.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (False,)
        rows = two.execute("SELECT pid FROM pg_stat_activity").fetchall()
        processes = [postmaster(server), *(pid for (pid,) in rows)]
        assert all(map(is_alive, processes))
    server.close()
    assert [pid for pid in processes if is_alive(pid)] == []
    assert not server.folder.exists()


def test_it_goes_with_its_folder_when_the_tests_are_killed() -> None:
    command = [sys.executable, "-c", START_AND_TELL]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as tests:
        assert tests.stdout is not None
        assert tests.stderr is not None
        folder = Path(tests.stdout.readline().strip())
        assert (folder / "data" / "postmaster.pid").exists()
        tests.send_signal(signal.SIGKILL)
        # The keeper holds the other end until it ends.
        assert tests.stderr.read() == ""
    assert not folder.exists()


def test_a_server_that_was_killed_leaves_no_folder_either() -> None:
    server = PostgresServer()
    server.kill()
    server.close()
    assert not server.folder.exists()


def test_what_was_committed_outlives_a_kill_and_what_was_not_does_not(
    postgres: PostgresServer, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE kept (what text)")
        connection.execute("INSERT INTO kept VALUES ('committed')")
        connection.commit()
        connection.execute("INSERT INTO kept VALUES ('not committed')")
        postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_url)
    postgres.start()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT what FROM kept").fetchall() == [("committed",)]


def test_a_restart_closes_connections_and_takes_new_ones(postgres: PostgresServer, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        before = postmaster(postgres)
        postgres.restart()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert postmaster(postgres) != before
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_test_that_leaves_the_server_stopped_spoils_no_other(postgres: PostgresServer) -> None:
    with postgres.fresh_database() as url:
        postgres.stop()
    with psycopg.connect(postgres.url()) as connection:
        name = conninfo_to_dict(url)["dbname"]
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchall() == []


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_has_an_empty_database_on_a_server_that_waits_for_the_disk(postgres_url: str, time: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert tables == []
        connection.execute("CREATE TABLE mine (x int)")
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
