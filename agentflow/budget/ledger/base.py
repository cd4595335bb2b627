"""The ledger's protocol: what every kind of ledger does, in memory or durable. May import spend, messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from agentflow.budget.spend import Quote, Spend
from agentflow.messages import Completion

State = Literal["held", "settled", "released", "in_doubt"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt. ``completion`` is set once a model's reply was settled: a replay returns it."""

    key: str
    node: str
    held: Quote
    state: State
    spend: Spend | None = None
    completion: Completion | None = None


class Ledger(Protocol):
    """Records every attempt before it leaves and after it ends.

    ``open`` before the request leaves, ``close`` with the reply. The same key never charges twice: ``open``
    hands back the entry that is already there.
    """

    async def open(self, key: str, node: str, held: Quote) -> Entry:
        """Record a hold, or return the entry already recorded under ``key``."""
        ...

    async def close(
        self, key: str, state: State, *, spend: Spend | None = None, completion: Completion | None = None
    ) -> Entry:
        """End a held entry. Ending it again changes nothing and returns what stands.

        Raises:
            KeyError: no entry was opened under ``key``.
        """
        ...

    async def find(self, key: str) -> Entry | None:
        """The entry under ``key``, if there is one."""
        ...
