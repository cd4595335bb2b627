"""Processes that spend through a ledger until they are killed: each is forked off a warm one, so that a kill is cheap.

Told a line of JSON on standard input, the keeper forks a worker; what the worker was promised by the ledger it says
on standard output, a line each, before it goes on. The keeper says when the worker is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from agentflow.budget.currency import Limits
from agentflow.budget.ledger import Opening
from agentflow.budget.ledger.durable import DurableLedger
from agentflow.budget.ledger.postgres import postgres_ledger
from agentflow.budget.ledger.sqlite import sqlite_ledger
from agentflow.budget.spend import Quote, Spend
from agentflow.errors import BudgetExceeded
from agentflow.messages import Completion, Timings, TokenUsage

HELD, TASKS = 100, 8


def open_ledger(address: str) -> DurableLedger:
    return postgres_ledger(address) if address.startswith("postgresql:") else sqlite_ledger(Path(address))


def say(*words: Any) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def work(order: dict[str, Any]) -> None:
    """Open and end calls under one tenant's limit, until it is spent or somebody kills us."""
    ledger = open_ledger(order["address"])
    chance = random.Random(order["seed"])
    limits: Limits = (order["limit"], None, None, None, None)

    async def calls(task: int) -> None:
        number = 0
        while order["most"] is None or number < order["most"]:
            key = f"{order['name']}|{order['seed']}|{task}|{number}"
            number += 1
            job = f"tenant/job-{order['name']}"
            nobody: Limits = (None, None, None, None, None)
            accounts = ((f"{job}/{task}", nobody), (job, nobody), ("tenant", limits))
            try:
                entry = await ledger.open(Opening(key, job, Quote(tokens=HELD), accounts))
            except BudgetExceeded:
                return
            if entry.state != "held":
                say("replayed", key, entry.state, entry.spend.tokens if entry.spend else 0)
                continue
            say("held", key)
            if chance.random() < 0.1:
                await ledger.close(key, "released")
                say("released", key)
                continue
            usage = TokenUsage(chance.randint(HELD - 5, HELD))
            reply = Completion(f"reply to {key}", "m", usage, Timings(0.1))
            await ledger.close(key, "settled", spend=Spend(1, usage), completion=reply)
            say("settled", key, usage.total)

    async with asyncio.TaskGroup() as group:
        for task in range(TASKS):
            group.create_task(calls(task))
    await ledger.aclose()


class Workers:
    """The keeper, from the test's side."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert next(self.lines()) == ["ready"]

    def start(
        self, address: str, name: str, *, seed: int = 0, limit: int | None = None, most: int | None = None
    ) -> int:
        """Fork a worker, and return its process id.

        Args:
            address: of the ledger.
            name: of its job.
            seed: of its chance; workers of one name and seed make the same calls.
            limit: tokens of the tenant.
            most: calls that each of its tasks makes.
        """
        assert self._keeper.stdin is not None
        order = {"address": address, "name": name, "seed": seed, "limit": limit, "most": most}
        self._keeper.stdin.write(json.dumps(order) + "\n")
        self._keeper.stdin.flush()
        word, pid = next(self.lines())
        assert word == "started"
        return int(pid)

    def lines(self) -> Iterator[list[str]]:
        """What is said, word by word, until a worker is gone."""
        assert self._keeper.stdout is not None
        while True:
            words = self._keeper.stdout.readline().split()
            if not words or words[0] == "gone":
                return
            yield words

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.communicate()


def main() -> None:
    say("ready")
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            asyncio.run(work(json.loads(line)))
            os._exit(0)
        os.close(reading)
        say("started", pid)
        os.close(writing)
        os.waitpid(pid, 0)
        say("gone", pid)


if __name__ == "__main__":
    import psycopg  # noqa: F401 - so that no worker imports it

    main()
