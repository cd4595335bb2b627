"""What is asked of the database again and again is answered from an index, however many jobs there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from agentflow.jobs import leases, records, tickets, transitions, watch
from agentflow.jobs.database import Database
from agentflow.jobs.job import JobFilter, JobSpec
from agentflow.jobs.leases import Post
from agentflow.jobs.opening import open_database
from agentflow.jobs.statements import anybody_waits, taken_by
from agentflow.jobs.tickets import QueueLimits
from agentflow.jobs.transitions import Fence, Submission
from tests.jobs.places import Place

SOME = QueueLimits(concurrency=5, tenant_concurrency=2)


def submit(connection: sa.Connection) -> None:
    spec = JobSpec(kind="echo", query="a", tenant="t", dedup_key="d")
    transitions.submit(connection, Submission("one", spec, "digest", "key"))


HOT: dict[str, Callable[[sa.Connection], Any]] = {
    "does anybody wait": anybody_waits,
    "hand out": lambda c: tickets.hand_out(c, "me", {}),
    "hand out within limits": lambda c: tickets.hand_out(c, "me", {"default": SOME}),
    "take": lambda c: transitions.take(c, Fence("one", 1, "me"), "run"),
    "what a worker has": lambda c: taken_by(c, "me"),
    "bury": lambda c: leases.bury(c, 5.0, 5),
    "sign off": lambda c: leases.sign_off(c, "me", 5),
    "glimpses": lambda c: watch.look(c, ["one", "two"]),
    "events": lambda c: records.events(c, "one", 3, 10),
    "submit": submit,
    "list": lambda c: records.page(c, JobFilter(), None, 50),
    "list of a tenant": lambda c: records.page(c, JobFilter(tenant="t"), None, 50),
    "statistics": records.statistics,
    "ended long ago": lambda c: records.ended_before(c, 30, 100),
}


async def asked(database: Database, work: Callable[[sa.Connection], Any]) -> list[tuple[str, Any]]:
    """The statements that some work sends."""
    sent: list[tuple[str, Any]] = []

    def hear(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        if not many:
            sent.append((statement, parameters))

    def heard(connection: sa.Connection) -> None:
        event.listen(connection, "before_cursor_execute", hear)
        try:
            work(connection)
        finally:
            event.remove(connection, "before_cursor_execute", hear)

    await database.write(heard)
    return sent


@pytest.mark.parametrize("name", HOT)
async def test_no_hot_statement_reads_all_jobs(any_place: Place, name: str) -> None:
    database = open_database(any_place.settings.jobs)
    try:
        async with any_place.jobs() as jobs:
            for number in range(20):
                await jobs.submit(JobSpec(kind="echo", query=str(number), tenant=f"t{number % 3}"))
        post = Post("me", ("default",), 100)
        await database.write(lambda c: leases.beat(c, post, first=True, draining=False))
        statements = await asked(database, HOT[name])
        assert statements

        def plans(connection: sa.Connection) -> list[str]:
            lite = connection.dialect.name == "sqlite"
            if not lite:
                # Of twenty jobs it would read all.
                connection.exec_driver_sql("set local enable_seqscan = off")
            how = "explain query plan " if lite else "explain "
            reads = [one for one in statements if one[0].lstrip().lower().startswith(("select", "update", "delete"))]
            return [
                " | ".join(str(row[-1]) for row in connection.exec_driver_sql(how + text, given).all())
                for text, given in reads
            ]

        for plan in await database.write(plans):
            # "SCAN ... USING COVERING INDEX" of an index that holds only what lives is as long as what lives.
            assert not re.search(r"SCAN agentflow_job(?! USING (COVERING )?INDEX)", plan), plan
            assert "Seq Scan on agentflow_job" not in plan, plan
            assert not re.search(r"autoindex_agentflow_job_1(?! \()", plan), plan
            print(name, "::", plan)
    finally:
        await database.aclose()
