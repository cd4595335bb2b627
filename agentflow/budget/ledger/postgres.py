"""The ledger in PostgreSQL: for many workers on many machines. Imports durable, rows; psycopg when first used.

A batch locks the accounts it touches in the order of their ids, so that batches of several workers wait for each
other instead of deadlocking, and reads its entries under these locks. A worker's session lock says that it is alive;
it needs a connection of its own for that (a pooler in transaction mode gives none).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Sequence, Set
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar, cast

import tenacity

from agentflow.budget.account import Account
from agentflow.budget.ledger import rows
from agentflow.budget.ledger.base import AccountState, Entry, EntryFilter
from agentflow.budget.ledger.durable import DurableLedger
from agentflow.budget.ledger.operations import Books, Close, Open, Operation, Result, SetLimits, apply_all, touched
from agentflow.errors import AgentflowError, LedgerError

if TYPE_CHECKING:
    import psycopg

_VERSION: Final = 1
# How long a database that restarts, or locks that cross, are waited for.
_PATIENCE_S: Final = 30.0
# Accounts that are known to be there: those of finished chains are never asked for again.
_REMEMBERED: Final = 10_000
# Serialization failure, deadlock, the same key or account made by two workers at once.
_AGAIN: Final = frozenset({"40001", "40P01", "23505"})
# What a server says of an address that no waiting will mend.
_NEVER: Final = ("does not exist", "authentication failed", "no pg_hba.conf entry")
# Any worker may be the first to make the tables; they take turns by this lock.
_MAKING: Final = 0x6167656E74666C6F

# A server that is gone without a word is noticed within half a minute.
_KEEPALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}

# A worker that is frozen in the middle of a transaction keeps its locks from all others for no longer than this.
_FROZEN: Final = "set idle_in_transaction_session_timeout = '3s'"

_ENTRY, _ACCOUNT = "agentflow_entry", "agentflow_account"


def _assign(table: str, key: str, columns: Iterable[str]) -> str:
    """An update of these columns, whose rows come as one parameter."""
    given = ", ".join(f"{name} = given.{name}" for name in columns)
    return (
        f"update {table} set {given} from json_populate_recordset(null::{table}, %s::json) as given"
        f" where {table}.{key} = given.{key}"
    )


_SCHEMA: Final = (
    f"create table {_ENTRY} ({', '.join(f'{name} {kind}' for name, kind in rows.ENTRY.items())})"
    " with (fillfactor = 70)",
    f"create table {_ACCOUNT} ({', '.join(f'{name} {kind}' for name, kind in rows.ACCOUNT.items())})"
    " with (fillfactor = 50)",
    f"create index on {_ENTRY} (opened_ms)",
    f"create index on {_ENTRY} (job, opened_ms) where job <> ''",
    f"create index on {_ENTRY} (tenant, opened_ms) where tenant <> ''",
    f"create index on {_ENTRY} (run) where state = 'held'",
    f"create index on {_ENTRY} (opened_ms) where state = 'in_doubt'",
    f"comment on table {_ENTRY} is 'agentflow ledger, version {_VERSION}'",
)
_SELECT_ENTRY: Final = f"select {', '.join(rows.ENTRY)} from {_ENTRY} where key = any(%s)"
_SELECT_ACCOUNT: Final = f"select {', '.join(rows.ACCOUNT)} from {_ACCOUNT}"
_STATES: Final = f"select key, state, token from {_ENTRY} where key = any(%s)"
_LOCK_ACCOUNTS: Final = f"{_SELECT_ACCOUNT} where id = any(%s) order by id for update"
# Whole batches come as one parameter each: driving a row at a time costs this process more than all the rest.
_MAKE_ACCOUNT: Final = (
    f"insert into {_ACCOUNT} ({', '.join(rows.ACCOUNT)}) select {', '.join(rows.ACCOUNT)}"
    f" from json_populate_recordset(null::{_ACCOUNT}, %s::json) order by id on conflict (id) do nothing"
)
_PUT_ENTRY: Final = (
    f"insert into {_ENTRY} ({', '.join(rows.ENTRY)}) select {', '.join(rows.ENTRY)}"
    f" from json_populate_recordset(null::{_ENTRY}, %s::json) on conflict (key) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in rows.ENTRY if name != "key")
)
_END_ENTRY: Final = _assign(_ENTRY, "key", rows.CLOSED)
_JUDGE_ENTRY: Final = _assign(_ENTRY, "key", rows.JUDGED)
_PUT_ACCOUNT: Final = _assign(_ACCOUNT, "id", [name for name in rows.ACCOUNT if name != "id"])
Value = TypeVar("Value")


def postgres_ledger(url: str) -> DurableLedger:
    """A ledger in the database at this address, whose tables are made when something is first recorded."""
    run = secrets.token_hex(8)
    return DurableLedger(PostgresDatabase(url, run), run)


class PostgresDatabase:
    """One database, as the writer's thread and readers use it.

    Args:
        url: its address, as libpq reads it.
        run: 16 hexadecimal digits that name this process; a session lock on them says that it is alive.
    """

    def __init__(self, url: str, run: str) -> None:
        self._url = url
        self._run = run
        self._connection: psycopg.Connection | None = None
        self._backend: int | None = None
        # Entries that this process holds, and accounts as it left them: what is unchanged needs no reading again.
        self._holding: dict[str, Entry] = {}
        self._known: dict[str, tuple[tuple[Any, ...], Account]] = {}

    def commit(self, operations: Sequence[Operation]) -> Sequence[Result | AgentflowError]:
        """Apply operations in order, in one transaction; it is repeated when it can be, and never applied twice."""
        books, results = self._patiently(lambda: self._once(operations), forget=True)
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        for id, account in books.accounts.items():
            self._known[id] = (rows.account_row(account, books.elapsed.get(id, 0.0)), account)
        for operation, result in zip(operations, results, strict=True):
            if isinstance(operation, Open) and isinstance(result, Entry) and result.state == "held":
                self._holding[result.key] = result
            elif isinstance(operation, Close):
                self._holding.pop(operation.key, None)
        return results

    def abandoned(self) -> tuple[tuple[str, ...], frozenset[str]]:
        """Keys of entries that runs hold which are no longer alive, and these runs."""

        def look() -> tuple[tuple[str, ...], frozenset[str]]:
            connection = self._connect()
            with connection.transaction():
                holding = _rows(connection, f"select key, run from {_ENTRY} where state = 'held'", ())
                others = {run for _, run in holding if run != self._run}
                dead = frozenset(run for run in others if self._is_dead(connection, run))
            return tuple(key for key, run in holding if run in dead), dead

        return self._patiently(look, forget=True)

    def entries(self, which: EntryFilter) -> list[Entry]:
        """Entries in the order they were opened, without their replies."""
        where, values = rows.conditions(which, "%s")
        statement = f"select {', '.join(rows.LISTED)} from {_ENTRY} where {where} order by opened_ms, token"
        (found,) = self._read((statement, values))
        return [rows.entry_of(row) for row in found]

    def accounts(self, id: str | None = None) -> list[AccountState]:
        """The account of this id, or every one, by id."""
        where, values = ("true", []) if id is None else ("id = %s", [id])
        statement = f'{_SELECT_ACCOUNT} where {where} order by id collate "C"'
        (found,) = self._read((statement, values))
        return [rows.account_of(row) for row in found]

    def books(self) -> tuple[list[Entry], list[AccountState]]:
        """Every entry and every account, as they stand at one moment."""
        entries, accounts = self._read(
            (f"select {', '.join(rows.LISTED)} from {_ENTRY}", ()), (f'{_SELECT_ACCOUNT} order by id collate "C"', ())
        )
        return [rows.entry_of(row) for row in entries], [rows.account_of(row) for row in accounts]

    def close(self) -> None:
        """Close the connection, and with it the lock that says that this process is alive."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once(self, operations: Sequence[Operation]) -> tuple[Books, Sequence[Result | AgentflowError]]:
        connection = self._connect()
        ids = {id for operation in operations for id in touched(operation)}
        keys = sorted({key for operation in operations for key in operation.keys})
        ids.update(id for key in keys if key in self._holding for id in self._holding[key].accounts)
        try:
            while True:
                # No pipeline: between its parts the server waits without a limit for a client that is frozen.
                with connection.transaction():
                    books = self._load(connection, operations, keys, ids)
                    named = {id for entry in books.entries.values() for id in entry.accounts}
                    if named <= books.accounts.keys():
                        before = {key: entry.token for key, entry in books.entries.items()}
                        results = apply_all(operations, books, time.time_ns() // 1_000_000)
                        self._save(connection, books, before)
                        return books, results
                # An entry of another process names more accounts. All locks are let go, and taken again in order.
                ids |= named
        except BaseException:
            # What was counted here is not what the database has.
            self._known.clear()
            raise

    def _load(
        self, connection: psycopg.Connection, operations: Sequence[Operation], keys: Sequence[str], ids: Set[str]
    ) -> Books:
        """Lock the accounts, then read the entries: nobody changes an entry without the locks of its accounts."""
        books = Books()
        self._make(connection, operations)
        for row in _rows(connection, _LOCK_ACCOUNTS, (sorted(ids),)):
            before, account = self._known.get(row[0], (None, None))
            if account is None or before != row:
                # Another process has changed it, or it is new here.
                account = rows.account_of(row).account
            books.accounts[row[0]], books.elapsed[row[0]] = account, row[-1]
        changed: list[str] = []
        for key, state, token in _rows(connection, _STATES, (keys,)):
            held = self._holding.get(key)
            if held is not None and state == "held" and held.token == token:
                books.entries[key] = held
            else:
                changed.append(key)
        for row in _rows(connection, _SELECT_ENTRY, (changed,)) if changed else ():
            books.entries[row[0]] = rows.entry_of(row)
        return books

    def _make(self, connection: psycopg.Connection, operations: Sequence[Operation]) -> None:
        """Make the accounts that nobody has used yet, in the order of their ids, so that they can be locked."""
        books = Books()
        for operation in operations:
            if isinstance(operation, Open):
                wanted = operation.opening.accounts
            else:
                wanted = ((operation.id, operation.limits),) if isinstance(operation, SetLimits) else ()
            for id, limits in wanted:
                if id not in self._known:
                    books.account(id, limits)
        new = [rows.account_row(account, 0.0) for account in books.accounts.values()]
        _many(connection, _MAKE_ACCOUNT, tuple(rows.ACCOUNT), new)

    def _save(self, connection: psycopg.Connection, books: Books, known: dict[str, int]) -> None:
        new: list[Sequence[Any]] = []
        ended: list[Sequence[Any]] = []
        for key in books.changed:
            entry = books.entries[key]
            if known.get(key) == entry.token:
                ended.append((key, *rows.closed_row(entry)))
            else:
                new.append(rows.full_row(entry))
        judged = [(key, *verdict) for key, verdict in books.judged.items()]
        accounts = [rows.account_row(books.accounts[id], books.elapsed.get(id, 0.0)) for id in books.touched]
        _many(connection, _PUT_ENTRY, tuple(rows.ENTRY), new)
        _many(connection, _END_ENTRY, ("key", *rows.CLOSED), ended)
        _many(connection, _JUDGE_ENTRY, ("key", *rows.JUDGED), judged)
        _many(connection, _PUT_ACCOUNT, tuple(rows.ACCOUNT), accounts)

    def _connect(self) -> psycopg.Connection:
        if self._connection is not None:
            return self._connection
        self._known.clear()
        connection: psycopg.Connection = _psycopg().connect(
            self._url, autocommit=True, connect_timeout=10, application_name="agentflow", **_KEEPALIVE
        )
        try:
            connection.execute(_FROZEN)
            self._say_alive(connection)
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _say_alive(self, connection: psycopg.Connection) -> None:
        """Take the lock of this run; a session of ours that the network cut off may still have it."""
        if not _rows(connection, "select pg_try_advisory_lock(%s)", (_number(self._run),))[0][0]:
            if self._backend is not None:
                connection.execute("select pg_terminate_backend(%s)", (self._backend,))
            raise _psycopg().OperationalError("the server still keeps an earlier session of this process")
        self._backend = connection.info.backend_pid

    def _prepare(self, connection: psycopg.Connection) -> None:
        """Make the tables, or refuse those of another version."""
        with connection.transaction():
            connection.execute("select pg_advisory_xact_lock(%s)", (_MAKING,))
            comment = _rows(connection, "select obj_description(to_regclass(%s))", (_ENTRY,))[0][0]
            exists = _rows(connection, "select to_regclass(%s)", (_ENTRY,))[0][0]
            if exists is None:
                for statement in _SCHEMA:
                    connection.execute(cast("LiteralString", statement))
            elif comment != f"agentflow ledger, version {_VERSION}":
                raise LedgerError(
                    f"The ledger in this database is '{comment}', this program writes version {_VERSION}. "
                    "Use the program that made it, or another database."
                )

    def _read(self, *statements: tuple[str, Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
        """Read at one moment, by a connection of its own: a long report holds nobody up."""
        psycopg = _psycopg()

        def read() -> list[list[tuple[Any, ...]]]:
            with psycopg.connect(self._url, connect_timeout=10, application_name="agentflow report") as connection:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                if _rows(connection, "select to_regclass(%s)", (_ENTRY,))[0][0] is None:
                    return [[] for _ in statements]
                return [_rows(connection, statement, values) for statement, values in statements]

        return self._patiently(read, forget=False)

    def _is_dead(self, connection: psycopg.Connection, run: str) -> bool:
        """Whether nobody holds the session lock that a living run holds."""
        number = _number(run)
        if not _rows(connection, "select pg_try_advisory_lock(%s)", (number,))[0][0]:
            return False
        connection.execute("select pg_advisory_unlock(%s)", (number,))
        return True

    def _patiently(self, work: Callable[[], Value], *, forget: bool) -> Value:
        """Do something, again while the database restarts or locks cross, for half a minute at most.

        Args:
            work: what to do, from the start each time.
            forget: drop the writer's connection when it breaks.
        """
        psycopg = _psycopg()

        def may_be_repeated(error: BaseException) -> bool:
            state = str(getattr(error, "sqlstate", None) or "")
            if not isinstance(error, psycopg.OperationalError) or state in _AGAIN:
                return state in _AGAIN
            if forget:
                self._forget()
            # A refused connection has no code, only words.
            return not any(words in str(error) for words in _NEVER)

        try:
            return tenacity.Retrying(
                retry=tenacity.retry_if_exception(may_be_repeated),
                wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
                stop=tenacity.stop_after_delay(_PATIENCE_S),
                reraise=True,
            )(work)
        except psycopg.DataError:
            raise
        except psycopg.Error as error:
            if forget:
                self._forget()
            raise LedgerError(
                f"The ledger in PostgreSQL cannot be used: {' '.join(str(error).split())}. Nothing was sent that it "
                "does not know. Check that the server runs, and the address and rights."
            ) from error

    def _forget(self) -> None:
        """Drop a connection that may be broken; the next use makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise LedgerError(
            "The ledger in PostgreSQL needs psycopg. Install it with: pip install 'agentflow[postgres]'."
        ) from error
    return psycopg


def _rows(connection: psycopg.Connection, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(cast("LiteralString", statement), values).fetchall()


def _many(
    connection: psycopg.Connection, statement: str, columns: Sequence[str], values: Sequence[Sequence[Any]]
) -> None:
    """Run a statement over rows of a table, of which these columns are given."""
    if values:
        given = json.dumps([dict(zip(columns, row, strict=True)) for row in values])
        connection.execute(cast("LiteralString", statement), (given,))


def _number(run: str) -> int:
    """A run as the 64 bits of an advisory lock."""
    return int(run, 16) - (1 << 63)
