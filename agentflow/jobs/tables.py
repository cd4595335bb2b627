"""The tables of jobs, the same in SQLite and PostgreSQL. The only other file that knows SQLAlchemy is ``database``.

Times are milliseconds since 1970, UTC. What belongs together in a row is JSON text, validated when it is read.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text, text

VERSION: Final = 1
# As text, because an index of some rows is used only for what is asked in the same words.
WAITS: Final = "state in ('queued', 'recovering')"
STANDS: Final = "state in ('queued', 'recovering', 'awaiting_approval', 'paused_budget')"
MOVES: Final = "state in ('queued', 'recovering', 'planning', 'running', 'verifying')"

metadata = MetaData()

job = Table(
    "agentflow_job",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False, default=""),
    Column("kind", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("stop_reason", Text),
    Column("partial", Boolean, nullable=False, default=False),
    Column("has_result", Boolean, nullable=False, default=False),
    Column("error", Text),
    Column("dead_letter", Boolean, nullable=False, default=False),
    # What was asked, and the part of it that may change.
    Column("spec", Text, nullable=False),
    Column("budget", Text, nullable=False),
    Column("budget_changes", Integer, nullable=False, default=0),
    Column("approved", Boolean, nullable=False, default=False),
    Column("plan", Text),
    Column("spend", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("next_ms", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger),
    # Lower goes first: the moment it was submitted, moved by its priority.
    Column("turn_ms", BigInteger, nullable=False),
    # The newest ticket, who wrote it and when; who has taken it, and under which name its calls are in the ledger.
    Column("ticket", Integer, nullable=False, default=0),
    Column("ticketed_by", Text),
    Column("ticketed_ms", BigInteger),
    Column("worker", Text),
    Column("ledger_run", Text),
    Column("tried_again_ms", BigInteger, nullable=False, default=0),
    Column("wish", Text),
    Column("runs", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("recoveries", Integer, nullable=False, default=0),
    Column("events", Integer, nullable=False, default=0),
    Column("dedup", Text),
    Column("idempotency", Text),
    Column("digest", Text),
)
Index("agentflow_job_waiting", job.c.queue, job.c.turn_ms, sqlite_where=text(f"ticketed_by is null and {WAITS}"), postgresql_where=text(f"ticketed_by is null and {WAITS}"))  # fmt: skip  # noqa: E501
Index("agentflow_job_ticketed", job.c.queue, sqlite_where=text("ticketed_by is not null"), postgresql_where=text("ticketed_by is not null"))  # fmt: skip  # noqa: E501
Index("agentflow_job_worker", job.c.worker, sqlite_where=text("worker is not null"), postgresql_where=text("worker is not null"))  # fmt: skip  # noqa: E501
Index("agentflow_job_due", job.c.next_ms, sqlite_where=text(f"ticketed_by is null and {WAITS}"), postgresql_where=text(f"ticketed_by is null and {WAITS}"))  # fmt: skip  # noqa: E501
Index("agentflow_job_late", job.c.deadline_ms, sqlite_where=text(f"deadline_ms is not null and {STANDS}"), postgresql_where=text(f"deadline_ms is not null and {STANDS}"))  # fmt: skip  # noqa: E501
Index("agentflow_job_live", job.c.queue, job.c.state, job.c.worker, job.c.next_ms, sqlite_where=text(MOVES), postgresql_where=text(MOVES))  # fmt: skip  # noqa: E501
Index("agentflow_job_lined", job.c.queue, job.c.tenant, job.c.turn_ms, job.c.id, job.c.next_ms, job.c.ticket, sqlite_where=text(f"ticketed_by is null and {WAITS}"), postgresql_where=text(f"ticketed_by is null and {WAITS}"))  # fmt: skip  # noqa: E501
Index("agentflow_job_listed", job.c.tenant, job.c.created_ms)
Index("agentflow_job_created", job.c.created_ms)
Index("agentflow_job_ended", job.c.ended_ms)
Index("agentflow_job_dedup", job.c.tenant, job.c.dedup, unique=True, sqlite_where=text("dedup is not null"), postgresql_where=text("dedup is not null"))  # fmt: skip  # noqa: E501
Index("agentflow_job_idempotency", job.c.tenant, job.c.idempotency, unique=True, sqlite_where=text("idempotency is not null"), postgresql_where=text("idempotency is not null"))  # fmt: skip  # noqa: E501

event = Table(
    "agentflow_job_event",
    metadata,
    Column("job", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("run", Integer, nullable=False),
    Column("data", Text, nullable=False),
    # Names what was written together, so that writing it again after a broken connection writes it once.
    Column("batch", Text, nullable=False),
)

artifact = Table(
    "agentflow_job_artifact",
    metadata,
    Column("job", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("facts", Text, nullable=False),
)

worker = Table(
    "agentflow_worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("seen_ms", BigInteger, nullable=False),
    Column("queues", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("draining", Boolean, nullable=False, default=False),
)

about = Table("agentflow_jobs_about", metadata, Column("version", Integer, primary_key=True, autoincrement=False))
