"""Disks that fill, files that are none, databases that restart: a clear error, and nothing that was there is lost."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import Ledger, Opening
from agentflow.budget.ledger import postgres as postgres_module
from agentflow.budget.ledger.postgres import PostgresDatabase, postgres_ledger
from agentflow.budget.ledger.sqlite import SqliteDatabase, sqlite_ledger
from agentflow.budget.ledger.writer import Writer
from agentflow.budget.spend import Quote, Spend
from agentflow.errors import LedgerError
from agentflow.messages import Completion, Timings, TokenUsage
from tests.servers.postgres import PostgresServer

LIMIT = (("job", Budget(tokens=10**9).limits),)
REPLY = Completion("x" * 20_000, "m", TokenUsage(5, 5), Timings(1.0))


async def pair(ledger: Ledger, key: str) -> None:
    await ledger.open(Opening(key, "job", Quote(10), LIMIT))
    await ledger.close(key, "settled", spend=Spend(1, TokenUsage(5, 5)), completion=REPLY)


async def test_a_full_disk_stops_new_calls_and_keeps_what_was_recorded(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "ledger.db", "0" * 16)
    ledger = sqlite_ledger(tmp_path / "ledger.db")
    ledger._database = database
    ledger._writer = Writer(database, "test")
    await pair(ledger, "first")

    def fill() -> None:
        assert database._connection is not None
        pages = database._connection.execute("pragma page_count").fetchone()[0]
        database._connection.execute(f"pragma max_page_count = {pages + 8}")

    await ledger._writer.call(fill)
    with pytest.raises(LedgerError, match=r"ledger\.db cannot be written: database or disk is full.*Check the disk"):
        for number in range(100):
            await pair(ledger, str(number))
    await ledger._writer.call(
        lambda: database._connection and database._connection.execute("pragma max_page_count = 0")
    )
    await ledger.recover()
    found = await ledger.find("first")
    assert found is not None and found.completion == REPLY
    held = await ledger.account("job")
    assert held is not None and held.account.spent[0] == 10 * len([e for e in await ledger.entries() if e.spend])
    assert await ledger.audit() == []
    await ledger.aclose()


async def test_a_file_that_is_no_ledger_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("my holiday plans, " * 1_000)
    ledger = sqlite_ledger(path)
    with pytest.raises(LedgerError, match="not a database"):
        await pair(ledger, "a")
    with pytest.raises(LedgerError, match="not a database"):
        await ledger.entries()
    await ledger.aclose()
    assert path.read_text().startswith("my holiday plans")


async def test_a_ledger_of_another_version_is_not_written(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as connection:
        connection.execute("pragma user_version = 7")
    ledger = sqlite_ledger(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match="of version 7, this program writes version 1"):
        await pair(ledger, "a")
    await ledger.aclose()


async def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ledger = sqlite_ledger(tmp_path / "file" / "ledger.db")
    with pytest.raises(LedgerError, match="cannot be written"):
        await pair(ledger, "a")
    assert await ledger.entries() == []
    await ledger.aclose()


async def test_a_closed_ledger_takes_nothing_more(tmp_path: Path) -> None:
    ledger = sqlite_ledger(tmp_path / "ledger.db")
    await pair(ledger, "a")
    await ledger.aclose()
    with pytest.raises(LedgerError, match="closed"):
        await pair(ledger, "b")


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    ledger = sqlite_ledger(tmp_path / "ledger.db")
    await pair(ledger, "a")
    assert (tmp_path / "ledger.db").stat().st_mode & 0o077 == 0
    await ledger.aclose()


def test_one_ledger_serves_several_event_loops(tmp_path: Path) -> None:
    ledger = sqlite_ledger(tmp_path / "ledger.db")
    for number in range(3):
        asyncio.run(pair(ledger, str(number)))
    asyncio.run(ledger.aclose())


async def test_a_restart_of_the_server_is_waited_for(postgres: PostgresServer, postgres_url: str) -> None:
    ledger = postgres_ledger(postgres_url)
    await pair(ledger, "before")
    await asyncio.to_thread(postgres.restart)
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(pair(ledger, str(number)))
    assert len(await ledger.entries()) == 9
    assert await ledger.audit() == []
    await ledger.aclose()


async def test_a_server_that_stays_away_is_an_error_in_time(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_PATIENCE_S", 0.2)
    ledger = postgres_ledger(postgres_url)
    await pair(ledger, "before")
    await asyncio.to_thread(postgres.stop)
    with pytest.raises(LedgerError, match=r"PostgreSQL cannot be used.*Nothing was sent"):
        await pair(ledger, "after")
    await asyncio.to_thread(postgres.start)
    await pair(ledger, "again")
    await ledger.aclose()


async def test_a_database_that_does_not_exist_is_told_at_once(postgres: PostgresServer) -> None:
    ledger = postgres_ledger(postgres.url("nowhere"))
    with pytest.raises(LedgerError, match='"nowhere" does not exist'):
        await asyncio.wait_for(pair(ledger, "a"), 5)
    await ledger.aclose()


async def test_a_password_never_reaches_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "_PATIENCE_S", 0.2)
    ledger = postgres_ledger("postgresql://someone:tiptoe-secret@127.0.0.1:9/nowhere")
    with pytest.raises(LedgerError) as raised:
        await pair(ledger, "a")
    assert "tiptoe-secret" not in str(raised.value)
    await ledger.aclose()


async def test_tables_of_another_version_are_not_written(postgres_url: str) -> None:
    import psycopg

    ledger = postgres_ledger(postgres_url)
    await pair(ledger, "a")
    await ledger.aclose()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("comment on table agentflow_entry is 'agentflow ledger, version 9'")
    newer = PostgresDatabase(postgres_url, "0" * 16)
    with pytest.raises(LedgerError, match="'agentflow ledger, version 9', this program writes version 1"):
        newer.commit([])
