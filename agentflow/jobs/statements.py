"""The statements that every step of a job needs, written out. Imports tables' names only.

SQLAlchemy builds a statement from its parts faster than a person could, and yet building these each time took more CPU
than running them. What is asked seldom is built from ``tables``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from agentflow.jobs.database import now_ms
from agentflow.jobs.plain import compact
from agentflow.jobs.tables import STANDS, WAITS

Happening = tuple[str, Mapping[str, Any]]

_ROW: Final = sa.text("select * from agentflow_job where id = :id")
_LOCKED: Final = sa.text("select * from agentflow_job where id = :id for update")
_IDS: Final[sa.BindParameter[Any]] = sa.bindparam("ids", expanding=True)
_CLOCK: Final = "(extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms"
_FENCED: Final = sa.text(
    "select id, ticket, worker, events, :now_ms as now_ms from agentflow_job where id in :ids"
).bindparams(_IDS)
_FENCED_LOCKED: Final = sa.text(
    f"select id, ticket, worker, events, {_CLOCK} from agentflow_job where id in :ids order by id for update"
).bindparams(_IDS)
_EVENT: Final = sa.text(
    "insert into agentflow_job_event (job, number, time_ms, kind, run, data, batch)"
    " values (:job, :number, :time_ms, :kind, :run, :data, :batch)"
)
_EVENTS: Final = sa.text(
    "insert into agentflow_job_event (job, number, time_ms, kind, run, data, batch)"
    " select job, number, time_ms, kind, run, data, batch"
    " from json_populate_recordset(null::agentflow_job_event, cast(:rows as json))"
)
_LATEST: Final = sa.text("select batch from agentflow_job_event where job = :id order by number desc limit 50")
# A ticket that nobody has taken for so long is written anew: whatever carried it has lost it.
LOST_MS: Final = 60_000
_WAITING: Final = (
    sa.text(f"select 1 from agentflow_job where ticketed_by is null and {WAITS} and next_ms <= :now limit 1"),
    sa.text(f"select 1 from agentflow_job where {STANDS} and deadline_ms <= :now and worker is null limit 1"),
    sa.text(
        "select 1 from agentflow_job where ticketed_by is not null and worker is null and ticketed_ms < :lost limit 1"
    ),
)
_REPORTS: Final = sa.text("select 1 from agentflow_worker where id = :id")
_REPORTS_LOCKED: Final = sa.text("select 1 from agentflow_worker where id = :id for key share")
_MINE: Final = sa.text(
    "select id, ticket, wish, budget, budget_changes, deadline_ms, runs from agentflow_job where worker = :me"
)


def row_of(connection: sa.Connection, id: str, *, lock: bool = False) -> sa.Row[Any] | None:
    """The row of a job; locked, where the database locks rows, so that nobody else changes it meanwhile."""
    locks = lock and connection.dialect.name != "sqlite"
    return connection.execute(_LOCKED if locks else _ROW, {"id": id}).first()


def change(
    connection: sa.Connection,
    id: str,
    run: int,
    happenings: Sequence[Happening],
    values: Mapping[str, Any] | None = None,
    *,
    fence: Mapping[str, Any] | None = None,
    batch: str = "",
) -> bool:
    """Change a job's row, and append events to its log.

    Args:
        connection: in a transaction.
        id: the job's.
        run: which of its runs it happened in.
        happenings: kinds and data of the events.
        values: columns and their new values.
        fence: columns that must have these values, or nothing is written.
        batch: names what is written, so that it can be told whether it was.

    Returns:
        Whether the job is there, and the fence held.
    """
    values, fence = values or {}, fence or {}
    given = {f"new_{name}": value for name, value in values.items()} | {f"old_{k}": v for k, v in fence.items()}
    sqlite = connection.dialect.name == "sqlite"
    given |= {"id": id, "told": len(happenings), **({"now_ms": now_ms(connection)} if sqlite else {})}
    changed = connection.execute(_update(tuple(values), tuple(fence), ":now_ms" if sqlite else _CLOCK), given).first()
    if changed is None:
        return False
    if happenings:
        last, now = changed
        first = last - len(happenings) + 1
        append(connection, event_rows(id, run, first, now, happenings, batch))
    return True


def event_rows(
    id: str, run: int, first: int, now: int, happenings: Sequence[Happening], batch: str
) -> list[dict[str, Any]]:
    """Events of a job as rows of their table, numbered from ``first`` on."""
    return [
        {"job": id, "number": first + place, "time_ms": now, "kind": kind, "run": run, "data": compact(dict(data)),
         "batch": batch}
        for place, (kind, data) in enumerate(happenings)
    ]  # fmt: skip


def fenced_rows(connection: sa.Connection, ids: Sequence[str]) -> Sequence[sa.Row[Any]]:
    """What a fence is checked by, how many events there are, and the time, of these jobs; locked as in ``row_of``."""
    if not ids:
        return ()
    sqlite = connection.dialect.name == "sqlite"
    given = {"ids": sorted(ids), **({"now_ms": now_ms(connection)} if sqlite else {})}
    return connection.execute(_FENCED if sqlite else _FENCED_LOCKED, given).all()


def append(connection: sa.Connection, events: Sequence[Mapping[str, Any]]) -> None:
    """Write events that have their numbers already: rows of their table."""
    if events:
        _write(connection, _EVENT, _EVENTS, events)


def assign(connection: sa.Connection, columns: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> None:
    """Give the same columns of many jobs, each named by its ``id``, new values."""
    _write(connection, _assign(columns), _assign_all(columns), rows)


def _write(
    connection: sa.Connection, one: sa.TextClause, all_of_them: sa.TextClause, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write rows: one at a time, or as one parameter where each would be a message to a server of its own."""
    if connection.dialect.name == "sqlite":
        connection.execute(one, rows)
    else:
        connection.execute(all_of_them, {"rows": json.dumps(rows)})


def was_written(connection: sa.Connection, id: str, batch: str) -> bool:
    """Whether a commit whose answer was lost wrote a batch of events. SQLite always answers."""
    if connection.dialect.name == "sqlite":
        return False
    return batch in connection.execute(_LATEST, {"id": id}).scalars().all()


def anybody_waits(connection: sa.Connection) -> bool:
    """Whether a job may start now, has waited past its deadline, or has a ticket that was lost."""
    now = now_ms(connection)
    moments = {"now": now, "lost": now - LOST_MS}
    return any(connection.execute(statement, moments).first() is not None for statement in _WAITING)


def reports(connection: sa.Connection, worker: str) -> bool:
    """Whether a worker is known to live; it is not buried before this transaction has ended."""
    statement = _REPORTS if connection.dialect.name == "sqlite" else _REPORTS_LOCKED
    return connection.execute(statement, {"id": worker}).first() is not None


def taken_by(connection: sa.Connection, worker: str) -> Sequence[sa.Row[Any]]:
    """What a worker needs to know of the jobs it has."""
    return connection.execute(_MINE, {"me": worker}).all()


@functools.lru_cache(maxsize=256)
def _update(columns: tuple[str, ...], fence: tuple[str, ...], clock: str) -> sa.TextClause:
    sets = ", ".join(["events = events + :told", *(f"{name} = :new_{name}" for name in columns)])
    where = " and ".join(["id = :id", *(f"{name} = :old_{name}" for name in fence)])
    return sa.text(f"update agentflow_job set {sets} where {where} returning events, {clock}")


@functools.lru_cache(maxsize=256)
def _assign(columns: tuple[str, ...]) -> sa.TextClause:
    sets = ", ".join(f"{name} = :{name}" for name in columns)
    return sa.text(f"update agentflow_job set {sets} where id = :id")


@functools.lru_cache(maxsize=256)
def _assign_all(columns: tuple[str, ...]) -> sa.TextClause:
    sets = ", ".join(f"{name} = given.{name}" for name in columns)
    given = "json_populate_recordset(null::agentflow_job, cast(:rows as json)) as given"
    return sa.text(f"update agentflow_job set {sets} from {given} where agentflow_job.id = given.id")
