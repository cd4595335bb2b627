"""Engine: what carries a ticket from wherever it was written to a worker that is free. Imports nothing of agentflow.

An engine promises little: while one worker of a queue lives, a ticket is run there at least once. That a job is at work
in one place only, that a dead worker's jobs go on elsewhere and that nothing is paid for twice is seen to above it, by
the fence in ``transitions`` and by the ledger. So an engine may lose its memory, or run a ticket again, without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to run a job once.

    Args:
        job: its id.
        number: which of its tickets; only the newest is good.
        queue: where it waits.
        order: lower goes first, from 1 to 2**31 - 1.
    """

    job: str
    number: int
    queue: str
    order: int

    @property
    def id(self) -> str:
        """Names the ticket for good."""
        return ticket_id(self.job, self.number)


def ticket_id(job: str, number: int) -> str:
    """The name of a job's ticket of this number."""
    return f"{job}.{number}"


Run = Callable[[str, int], Coroutine[Any, Any, None]]
"""Runs the job of this id with its ticket of this number. It raises nothing but CancelledError."""


class Engine(Protocol):
    """Durable queues of tickets, served by workers."""

    async def start(self, run: Run, queues: Sequence[str], slots: int) -> None:
        """Begin to take tickets of these queues, at most ``slots`` at a time of each.

        Raises:
            UsageError: this database is served already, and allows one worker only.
            JobStoreError: the database cannot be used.
        """
        ...

    async def enqueue(self, tickets: Sequence[Ticket]) -> None:
        """Write tickets down. One that is known already is left as it is.

        Raises:
            JobStoreError: they could not be written; those that were may be enqueued again.
        """
        ...

    async def forget(self, ids: Sequence[str]) -> None:
        """Drop tickets that are done or no longer good."""
        ...

    async def aclose(self) -> None:
        """Take no more tickets, and let go of the database. What still runs must have ended before."""
        ...
