"""The ledger in one SQLite file: for all processes of one machine. Imports durable, rows, sqlite3.

WAL with full syncs: a commit is on the disk when it returns. One writer at a time, which SQLite's own lock sees to.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from agentflow.budget.ledger import rows
from agentflow.budget.ledger.base import AccountState, Entry, EntryFilter
from agentflow.budget.ledger.durable import DurableLedger
from agentflow.budget.ledger.operations import Books, Operation, Result, apply_all, touched
from agentflow.errors import AgentflowError, LedgerError

_VERSION: Final = 1
_BUSY_MS: Final = 30_000
# SQLite's default limit on parameters of one statement is 32,766; a few hundred keep statements few in number.
_AT_ONCE: Final = 250
# Accounts kept in memory between batches: those of finished chains are never asked for again.
_REMEMBERED: Final = 5_000

_SCHEMA: Final = f"""
create table entry ({", ".join(f"{name} {kind}" for name, kind in rows.ENTRY.items())}) without rowid;
create table account ({", ".join(f"{name} {kind}" for name, kind in rows.ACCOUNT.items())}) without rowid;
create index entry_opened on entry (opened_ms);
create index entry_job on entry (job, opened_ms) where job <> '';
create index entry_tenant on entry (tenant, opened_ms) where tenant <> '';
create index entry_held on entry (run) where state = 'held';
create index entry_in_doubt on entry (opened_ms) where state = 'in_doubt';
pragma user_version = {_VERSION};
"""
_SELECT_ENTRY: Final = f"select {', '.join(rows.ENTRY)} from entry where key in "
_SELECT_ACCOUNT: Final = f"select {', '.join(rows.ACCOUNT)} from account"
_PUT_ENTRY: Final = (
    f"insert or replace into entry ({', '.join(rows.ENTRY)}) values ({', '.join('?' * len(rows.ENTRY))})"
)
_END_ENTRY: Final = f"update entry set {', '.join(f'{name} = ?' for name in rows.CLOSED)} where key = ?"
_JUDGE_ENTRY: Final = f"update entry set {', '.join(f'{name} = ?' for name in rows.JUDGED)} where key = ?"
_PUT_ACCOUNT: Final = (
    f"insert into account values ({', '.join('?' * len(rows.ACCOUNT))}) on conflict (id) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in rows.ACCOUNT if name != "id")
)
_COUNTERS: Final = [name for name in rows.ACCOUNT if name != "id" and not name.startswith("limit_")]
_COUNTERS_FROM: Final = len(rows.ACCOUNT) - len(_COUNTERS)
_COUNT_ACCOUNT: Final = f"update account set {', '.join(f'{name} = ?' for name in _COUNTERS)} where id = ?"


def sqlite_ledger(path: Path) -> DurableLedger:
    """A ledger in this file, which is made when something is first recorded."""
    run = secrets.token_hex(8)
    return DurableLedger(SqliteDatabase(path, run), run)


class SqliteDatabase:
    """One file, as the writer's thread and readers use it.

    Args:
        path: of the file; its folder is made.
        run: names this process; a lock on a file of this name says that it is alive.
    """

    def __init__(self, path: Path, run: str) -> None:
        # Whatever folder the process changes to.
        self.path = path = path.absolute()
        self._run = run
        self._runs = path.with_name(f"{path.name}.runs")
        self._alive = FileLock(self._runs / f"{run}.lock", thread_local=False)
        self._connection: sqlite3.Connection | None = None
        # What the last batch left: still true while nobody else has written.
        self._books = Books()
        self._seen_version = -1

    def commit(self, operations: Sequence[Operation]) -> Sequence[Result | AgentflowError]:
        """Apply operations in order, in one transaction."""
        try:
            connection = self._connect()
            connection.execute("begin immediate")
            try:
                results = self._apply(connection, operations)
                connection.execute("commit")
                return results
            except BaseException:
                self._seen_version = -1
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
        except (sqlite3.OperationalError, sqlite3.IntegrityError, OSError) as error:
            raise self._failed("written", error) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, (sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.NotSupportedError)):
                raise
            raise self._failed("written", error) from error

    def abandoned(self) -> tuple[tuple[str, ...], frozenset[str]]:
        """Keys of entries that runs hold which are no longer alive, and these runs."""
        try:
            connection = self._connect()
            holding = connection.execute("select key, run from entry where state = 'held'").fetchall()
            dead = frozenset(run for run in {run for _, run in holding} if run != self._run and self._is_dead(run))
            return tuple(key for key, run in holding if run in dead), dead
        except (sqlite3.Error, OSError) as error:
            raise self._failed("read", error) from error

    def entries(self, which: EntryFilter) -> list[Entry]:
        """Entries in the order they were opened, without their replies."""
        where, values = rows.conditions(which, "?")
        listed = ", ".join(rows.LISTED)
        (found,) = self._read((f"select {listed} from entry where {where} order by opened_ms, token", values))
        return [rows.entry_of(row) for row in found]

    def accounts(self, id: str | None = None) -> list[AccountState]:
        """The account of this id, or every one, by id."""
        one = (f"{_SELECT_ACCOUNT} where id = ?", [id])
        (found,) = self._read((f"{_SELECT_ACCOUNT} order by id", ()) if id is None else one)
        return [rows.account_of(row) for row in found]

    def books(self) -> tuple[list[Entry], list[AccountState]]:
        """Every entry and every account, as they stand at one moment."""
        entries, accounts = self._read(
            (f"select {', '.join(rows.LISTED)} from entry", ()), (f"{_SELECT_ACCOUNT} order by id", ())
        )
        return [rows.entry_of(row) for row in entries], [rows.account_of(row) for row in accounts]

    def close(self) -> None:
        """Close the file, and say that this process no longer holds anything."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._alive.release()
            Path(self._alive.lock_file).unlink(missing_ok=True)

    def _apply(
        self, connection: sqlite3.Connection, operations: Sequence[Operation]
    ) -> Sequence[Result | AgentflowError]:
        books = self._books
        version = int(connection.execute("pragma data_version").fetchone()[0])
        if version != self._seen_version or len(books.accounts) > _REMEMBERED:
            books = self._books = Books()
            self._seen_version = version
        self._load(connection, books, operations)
        keys = {key for operation in operations for key in operation.keys}
        known = {key: books.entries[key].token for key in keys if key in books.entries}
        results = apply_all(operations, books, time.time_ns() // 1_000_000)
        self._save(connection, books, known)
        # What has ended is not asked for again soon, and its reply may be large.
        for key in keys:
            entry = books.entries.get(key)
            if entry is not None and entry.state != "held":
                del books.entries[key]
        return results

    def _load(self, connection: sqlite3.Connection, books: Books, operations: Sequence[Operation]) -> None:
        """Read what the operations touch and is not known yet."""
        wanted = {key for operation in operations for key in operation.keys if key not in books.entries}
        for some in _chunks(wanted):
            for row in connection.execute(f"{_SELECT_ENTRY}({', '.join('?' * len(some))})", some):
                books.entries[row[0]] = rows.entry_of(row)
        ids = {id for operation in operations for id in touched(operation)}
        for operation in operations:
            for key in operation.keys:
                entry = books.entries.get(key)
                if entry is not None:
                    ids.update(entry.accounts)
        for some in _chunks(ids - books.accounts.keys()):
            for row in connection.execute(f"{_SELECT_ACCOUNT} where id in ({', '.join('?' * len(some))})", some):
                state = rows.account_of(row)
                books.accounts[row[0]], books.elapsed[row[0]] = state.account, state.elapsed_s
                books.standing.add(row[0])

    @staticmethod
    def _save(connection: sqlite3.Connection, books: Books, known: dict[str, int]) -> None:
        new: list[tuple[Any, ...]] = []
        ended: list[tuple[Any, ...]] = []
        for key in books.changed:
            entry = books.entries[key]
            if known.get(key) == entry.token:
                ended.append((*rows.closed_row(entry), key))
            else:
                new.append(rows.full_row(entry))
        if new:
            connection.executemany(_PUT_ENTRY, new)
        if ended:
            connection.executemany(_END_ENTRY, ended)
        if books.judged:
            connection.executemany(_JUDGE_ENTRY, [(*verdict, key) for key, verdict in books.judged.items()])
        counted: list[tuple[Any, ...]] = []
        whole: list[tuple[Any, ...]] = []
        for id in books.touched:
            row = rows.account_row(books.accounts[id], books.elapsed.get(id, 0.0))
            if id in books.standing:
                counted.append((*row[_COUNTERS_FROM:], id))
            else:
                whole.append(row)
        connection.executemany(_COUNT_ACCOUNT, counted)
        connection.executemany(_PUT_ACCOUNT, whole)
        books.standing.update(books.touched)
        books.saved()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._alive.acquire()
            # What is recorded there is nobody else's business.
            self.path.touch(mode=0o600)
            connection = sqlite3.connect(self.path, timeout=_BUSY_MS / 1000, isolation_level=None)
            try:
                connection.execute("pragma journal_mode = wal")
                connection.execute("pragma synchronous = full")
                self._prepare(connection)
            except BaseException:
                connection.close()
                self._alive.release()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables, or refuse those of another version."""
        connection.execute("begin immediate")
        version = int(connection.execute("pragma user_version").fetchone()[0])
        if version == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
        connection.execute("commit")
        if version not in (0, _VERSION):
            raise LedgerError(
                f"The ledger {self.path} is of version {version}, this program writes version {_VERSION}. "
                "Use the program that made it, or another file."
            )

    def _read(self, *statements: tuple[str, Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
        """Read in one transaction, by a connection of its own: a long report holds nobody up."""
        try:
            if not self.path.exists():
                return [[] for _ in statements]
            uri = f"{self.path.as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_MS / 1000, isolation_level=None)
            try:
                connection.execute("begin")
                return [connection.execute(statement, values).fetchall() for statement, values in statements]
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return [[] for _ in statements]
            raise self._failed("read", error) from error
        except (sqlite3.Error, OSError) as error:
            raise self._failed("read", error) from error

    def _is_dead(self, run: str) -> bool:
        """Whether nobody holds the lock that a living run holds."""
        file = self._runs / f"{run}.lock"
        if not file.exists():
            return True
        try:
            with FileLock(file, timeout=0):
                pass
        except Timeout:
            return False
        file.unlink(missing_ok=True)
        return True

    def _failed(self, what: str, error: Exception) -> LedgerError:
        return LedgerError(
            f"The ledger {self.path} cannot be {what}: {error}. Nothing was sent that it does not know. "
            "Check the disk's space and the file's rights."
        )


def _chunks(keys: Iterable[str]) -> list[list[str]]:
    listed = sorted(keys)
    return [listed[start : start + _AT_ONCE] for start in range(0, len(listed), _AT_ONCE)]
