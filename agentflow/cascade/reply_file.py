"""Replies in one SQLite file, for all processes of one machine: bounded, and never more than a cache.

A file that is broken is made anew; one that cannot be written is as good as empty. Neither ever fails a call. The
file has its own thread. May import the ledger's rows (how a completion is written). ``cache`` decides what is kept.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from agentflow.budget.ledger.rows import reply_of, reply_text
from agentflow.messages import Completion

_LOG = logging.getLogger(__name__)
_VERSION: Final = 1
_BUSY_S: Final = 5.0
# Evicted down to this share of what is allowed, so that not every reply evicts one.
_ROOM: Final = 0.9
# How much older its last use must be before a hit writes the new one.
_FRESH_MS: Final = 60_000
_SCHEMA: Final = f"""
create table reply (
    key text primary key, rung text not null, reply text not null, size integer not null,
    at_ms integer not null, used_ms integer not null, expires_ms integer not null,
    likeness text not null, guard text not null, vector blob
);
create index reply_used on reply (used_ms);
create index reply_likeness on reply (likeness, guard, at_ms) where likeness <> '';
create table total (bytes integer not null);
insert into total values (0);
create trigger reply_added after insert on reply begin update total set bytes = bytes + new.size; end;
create trigger reply_gone after delete on reply begin update total set bytes = bytes - old.size; end;
pragma user_version = {_VERSION};
"""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Likeness:
    """By what a question is found when it is not the very same: see ``semantic_cache``.

    Args:
        scope: names everything but the question's wording; only within it may questions be alike.
        guard: a digest of what must not differ at all: numbers, names.
        vector: the question's meaning, float32 of unit length.
    """

    scope: str
    guard: str
    vector: bytes


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply that was accepted, whose it was, and when (seconds since 1970)."""

    key: str
    rung: str
    completion: Completion
    at_s: float


@dataclass(frozen=True, slots=True)
class ReplyFileStatistics:
    """A snapshot: how many replies are kept, and their bytes."""

    replies: int
    bytes: int


class ReplyFile:
    """The file.

    Args:
        path: where it is; it and its folder are made when something is first kept.
        most_bytes: of all replies together; those used longest ago go first.
        now: seconds since 1970.
    """

    def __init__(self, path: Path, most_bytes: int, now: Callable[[], float] = time.time) -> None:
        self.path = path.absolute()
        self._most = most_bytes
        self._now = now
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "agentflow-replies")
        self._warned = False

    async def find(self, key: str, within_s: float) -> KeptReply | None:
        """The reply under a key, if it was given within so many seconds."""
        return await self._run(lambda file: self._find(file, key, within_s), None, make=False)

    async def like(self, scope: str, guard: str, within_s: float, most: int) -> list[tuple[str, bytes]]:
        """Keys and vectors of replies in a scope with the same guard, the latest first, at most so many."""
        return await self._run(lambda file: self._like(file, scope, guard, within_s, most), [], make=False)

    async def keep(self, reply: KeptReply, within_s: float, likeness: Likeness | None = None) -> None:
        """Keep a reply for so many seconds; what was under its key is replaced."""
        await self._run(lambda file: self._keep(file, reply, within_s, likeness), None)

    async def statistics(self) -> ReplyFileStatistics:
        """A snapshot of the file."""
        return await self._run(_count, ReplyFileStatistics(0, 0), make=False)

    async def aclose(self) -> None:
        """Close the file. Closing twice changes nothing."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _run(self, work: Callable[[sqlite3.Connection], Result], nothing: Result, *, make: bool = True) -> Result:
        """Do something with the file on its thread; without a file, or with a broken one, there is nothing."""

        def do() -> Result:
            if not make and self._connection is None and not self.path.exists():
                return nothing
            try:
                return self._whole(work)
            except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
                self._warn(error)
                return nothing

        return await asyncio.get_running_loop().run_in_executor(self._thread, do)

    def _whole(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do it; when the file turns out to be broken, make it anew and do it again."""
        try:
            return work(self._connect())
        except sqlite3.DatabaseError as error:
            # Busy, full and read-only are OperationalErrors: they pass, and say nothing of what is in the file.
            if type(error) is not sqlite3.DatabaseError:
                raise
            _LOG.warning("The cache of replies %s is broken (%s); it is made anew.", self.path, error)
            self._remove()
            return work(self._connect())

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Replies are nobody else's business.
            self.path.touch(mode=0o600)
            connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("pragma journal_mode = wal")
                # A power cut may lose the last replies, and nothing else.
                connection.execute("pragma synchronous = normal")
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("begin immediate")
        version = int(connection.execute("pragma user_version").fetchone()[0])
        if version == 0:
            for statement in _statements():
                connection.execute(statement)
        connection.execute("commit")
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"it is of version {version}")

    def _remove(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _find(self, file: sqlite3.Connection, key: str, within_s: float) -> KeptReply | None:
        now_ms = self._ms()
        row = file.execute(
            "select rung, reply, at_ms, used_ms from reply where key = ? and at_ms >= ?", (key, now_ms - _ms(within_s))
        ).fetchone()
        if row is None:
            return None
        rung, text, at_ms, used_ms = row
        if used_ms < now_ms - _FRESH_MS:
            file.execute("update reply set used_ms = ? where key = ?", (now_ms, key))
        return KeptReply(key, rung, reply_of(text), at_ms / 1000)

    def _like(
        self, file: sqlite3.Connection, scope: str, guard: str, within_s: float, most: int
    ) -> list[tuple[str, bytes]]:
        return file.execute(
            "select key, vector from reply where likeness = ? and likeness <> '' and guard = ? and at_ms >= ? "
            "order by at_ms desc limit ?",
            (scope, guard, self._ms() - _ms(within_s), most),
        ).fetchall()

    def _keep(self, file: sqlite3.Connection, reply: KeptReply, within_s: float, likeness: Likeness | None) -> None:
        text, now_ms = reply_text(reply.completion), self._ms()
        alike = ("", "", None) if likeness is None else (likeness.scope, likeness.guard, likeness.vector)
        size = len(text.encode("utf-8", "surrogatepass")) + len(reply.key) + len(alike[2] or b"")
        if size > self._most:
            return
        at_ms = _ms(reply.at_s)
        row = (reply.key, reply.rung, text, size, at_ms, now_ms, at_ms + _ms(within_s), *alike)
        file.execute("begin immediate")
        try:
            # Not "insert or replace", which tells no trigger of what it replaced.
            file.execute("delete from reply where key = ? or expires_ms < ?", (reply.key, now_ms))
            file.execute(f"insert into reply values ({', '.join('?' * len(row))})", row)
            self._evict(file)
            file.execute("commit")
        except BaseException:
            if file.in_transaction:
                file.execute("rollback")
            raise

    def _evict(self, file: sqlite3.Connection) -> None:
        (held,) = file.execute("select bytes from total").fetchone()
        if held > self._most:
            file.execute(
                "delete from reply where key in (select key from "
                "(select key, sum(size) over (order by used_ms desc, key) as kept from reply) where kept > ?)",
                (int(self._most * _ROOM),),
            )

    def _ms(self) -> int:
        return _ms(self._now())

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("The cache of replies %s cannot be used: %s. Calls are made all the same.", self.path, error)


def _count(file: sqlite3.Connection) -> ReplyFileStatistics:
    return ReplyFileStatistics(*file.execute("select (select count(*) from reply), bytes from total").fetchone())


def _statements() -> list[str]:
    """The schema, statement by statement; a trigger has a semicolon within."""
    return [statement for statement in _SCHEMA.split(";\n") if statement.strip()]


def _ms(seconds: float) -> int:
    # An age beyond all time is a century.
    return int(min(seconds, 3.2e12) * 1000)
