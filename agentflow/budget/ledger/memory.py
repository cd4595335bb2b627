"""A ledger in this process's memory: the default for a bare chain. It ends with the process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from agentflow.budget.ledger.base import Entry, State
from agentflow.budget.spend import Quote, Spend
from agentflow.messages import Completion


class MemoryLedger:
    """Entries in a dict, in the order they were opened."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    async def open(self, key: str, node: str, held: Quote) -> Entry:
        """Record a hold, or return the entry already recorded under ``key``."""
        return self._entries.setdefault(key, Entry(key, node, held, "held"))

    async def close(
        self, key: str, state: State, *, spend: Spend | None = None, completion: Completion | None = None
    ) -> Entry:
        """End a held entry; ending it again changes nothing."""
        entry = self._entries[key]
        if entry.state == "held":
            entry = replace(entry, state=state, spend=spend, completion=completion)
            self._entries[key] = entry
        return entry

    async def find(self, key: str) -> Entry | None:
        """The entry under ``key``, if there is one."""
        return self._entries.get(key)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)
