"""The server's tables, beside those of jobs in the same database. Imports SQLAlchemy.

Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

metadata = MetaData()

key = Table(
    "agentflow_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("requests_per_minute", Integer),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

watch = Table(
    "agentflow_webhook_watch",
    metadata,
    Column("job", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("url", Text, nullable=False),
    # The state that was told last.
    Column("told", Text, nullable=False, default=""),
)

delivery = Table(
    "agentflow_webhook_delivery",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    # due, delivered, dead.
    Column("state", Text, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
Index("agentflow_webhook_due", delivery.c.state, delivery.c.due_ms)
Index("agentflow_webhook_job", delivery.c.job)

idempotency = Table(
    "agentflow_idempotency",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
)

response = Table(
    "agentflow_response",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("previous", Text),
    # Of one in the background: the job that does it, and how it is written down.
    Column("job", Text),
    # What was asked, and what it came to; the latter is written once.
    Column("asked", Text, nullable=False),
    Column("body", Text),
)
Index("agentflow_response_made", response.c.created_ms)

pace = Table(
    "agentflow_pace",
    metadata,
    Column("key", Text, primary_key=True),
    # When its bucket will be empty again, by the database's clock: microseconds since 1970.
    Column("empty_us", BigInteger, nullable=False),
    # What the latest request was told: 0 if it was let through.
    Column("wait_us", BigInteger, nullable=False),
)
