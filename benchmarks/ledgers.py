"""Pairs of hold and settle a second: agentflow's meter and ledgers, and a bare SQLite writer beside them.

The bare writer is what is left of a durable ledger when everything is taken away but the writing: the same rows of the
entry, opened and ended, and its four accounts updated by plain statements, through the same kind of thread, queue and
group commit; no look at any limit, no budget tree, nothing read. Imports agentflow; ``rows`` gives both their columns.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentflow.budget.budget import Budget
from agentflow.budget.currency import Amounts
from agentflow.budget.ledger import Entry, Labels, Ledger, Opening, rows
from agentflow.budget.meter import Meter
from agentflow.budget.spend import Emissions, Quote, Spend
from agentflow.energy.interval import Energy
from agentflow.messages import Completion, Timings, TokenUsage

QUOTE = Quote(1_000, 5_000, 6_000_000, 0.0, 100)
USAGE = TokenUsage(600, 200, source="provider")
SPEND = Spend(
    1, USAGE, 4_000, Energy(3.0, 1.0, 5.0, "modelled", assumed=("a guess",)), 0.5, co2e=Emissions(50, 10, 90)
)  # fmt: skip
REPLY = Completion("A reply of some length. " * 10, "model", USAGE, Timings(0.5, 0.1))
LABELS = Labels("tenant", "job", "chain", "agent", "call", "default", "small", "model", "model")
_MOST = 256


def tree() -> Meter:
    """A job's node under a tenant's, with limits in every currency, none of which is ever reached."""
    tenant = Meter("tenant", Budget(usd=10**6), kind="tenant")
    return tenant.child("job", Budget(usd=10**6, tokens=10**12, joules=1e12, seconds=1e6), kind="job")


def memory_pairs(pairs: int = 40_000, rounds: int = 5) -> float:
    """Pairs a second of CPU time through tenant, job, chain and agent, in memory: the best of some rounds."""
    agent = tree().child("chain", Budget(tokens=10**12)).child("agent")
    best = 0.0
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(pairs):
            agent.hold(QUOTE).settle(SPEND)
        best = max(best, pairs / (time.process_time() - started))
    return best


async def ledger_pairs(ledger: Ledger, tasks: int, seconds: float) -> float:
    """Pairs a second through the same tree and a ledger, by so many tasks at once, each as a call makes them."""
    job = tree()
    agents = [job.child(f"chain-{n % 4}").child(f"agent-{n}") for n in range(tasks)]

    async def pair(task: int, number: int) -> None:
        node = agents[task]
        key = f"job|{task}|{number}"
        with node.hold(QUOTE) as hold:
            await ledger.open(Opening(key, node.path, QUOTE, node.recorded_limits, LABELS, node.clocks))
            hold.settle(SPEND)
            await ledger.close(key, "settled", spend=SPEND, completion=REPLY, first_token_s=0.1)

    return await _rate(pair, tasks, seconds)


async def bare_pairs(path: Path, tasks: int, seconds: float) -> float:
    """Pairs a second that the bare writer commits, by so many tasks at once."""
    entry = Entry("", "tenant/job/chain/agent", QUOTE, ("a", "b", "c", "d"), LABELS, "held", "0" * 16, 1, 10**12)
    ended = replace(entry, state="settled", closed_ms=10**12, spend=SPEND, completion=REPLY, first_token_s=0.1)
    writer = BareWriter(path, [f"tenant/job/chain-{n}/agent" for n in range(tasks)])

    async def pair(task: int, number: int) -> None:
        key = f"job|{task}|{number}"
        await writer.put(_Write(task, (key, *rows.full_row(entry)[1:]), None))
        await writer.put(_Write(task, None, (*rows.closed_row(ended), key)))

    try:
        return await _rate(pair, tasks, seconds)
    finally:
        await writer.aclose()


async def _rate(pair: Callable[[int, int], Awaitable[None]], tasks: int, seconds: float) -> float:
    done = 0
    started = time.perf_counter()

    async def work(task: int) -> None:
        nonlocal done
        number = 0
        while time.perf_counter() - started < seconds:
            await pair(task, number)
            number += 1
            done += 1

    async with asyncio.TaskGroup() as group:
        for task in range(tasks):
            group.create_task(work(task))
    return done / (time.perf_counter() - started)


@dataclass(slots=True)
class _Write:
    task: int
    opened: tuple[Any, ...] | None
    closed: tuple[Any, ...] | None


class BareWriter:
    """A thread that commits whatever is queued, and nothing more."""

    def __init__(self, path: Path, paths: list[str]) -> None:
        self._accounts = [(path, path.rpartition("/")[0], "tenant/job", "tenant") for path in paths]
        self._queue: queue.SimpleQueue[tuple[_Write, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        for name, columns in (("entry", rows.ENTRY), ("account", rows.ACCOUNT)):
            listed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
            self._connection.execute(f"create table {name} ({listed}) without rowid")
        for id in sorted({id for ids in self._accounts for id in ids}):
            row = (id, *[10**15] * 5, *[0] * 10, "", 0, 0.0)
            self._connection.execute(f"insert into account values ({', '.join('?' * len(rows.ACCOUNT))})", row)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    async def put(self, write: _Write) -> None:
        """Queue a write and wait until it is committed."""
        future = asyncio.get_running_loop().create_future()
        self._queue.put((write, future))
        await future

    async def aclose(self) -> None:
        """End the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _work(self) -> None:
        while (batch := self._gather()) is not None:
            self._connection.execute("begin immediate")
            for write, _ in batch:
                self._write(write)
            self._connection.execute("commit")
            futures = [future for _, future in batch]
            futures[0].get_loop().call_soon_threadsafe(_resolve, futures)

    def _gather(self) -> list[tuple[_Write, asyncio.Future[None]]] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < _MOST and not self._queue.empty():
            item = self._queue.get()
            if item is None:
                self._queue.put(None)
                break
            batch.append(item)
        return batch

    def _write(self, write: _Write) -> None:
        held: Amounts = QUOTE.amounts
        if write.opened is not None:
            self._connection.execute(_INSERT, write.opened)
            self._connection.executemany(_HOLD, [(*held, id) for id in self._accounts[write.task]])
        elif write.closed is not None:
            self._connection.execute(_END, write.closed)
            amounts = (*held, *SPEND.amounts)
            self._connection.executemany(_SETTLE, [(*amounts, id) for id in self._accounts[write.task]])


_CURRENCIES = ("tokens", "nano_usd", "microjoules", "micrograms", "calls")
_HELD = ", ".join(f"held_{c} = held_{c} + ?" for c in _CURRENCIES)
_ENDED = ", ".join(
    [f"held_{c} = held_{c} - ?" for c in _CURRENCIES] + [f"spent_{c} = spent_{c} + ?" for c in _CURRENCIES]
)
_INSERT = f"insert into entry values ({', '.join('?' * len(rows.ENTRY))})"
_END = f"update entry set {', '.join(f'{name} = ?' for name in rows.CLOSED)} where key = ?"
_HOLD = f"update account set {_HELD} where id = ?"
_SETTLE = f"update account set {_ENDED} where id = ?"


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
