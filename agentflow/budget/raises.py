"""Raises: limits that were changed in this process, until the ledger has been told of them. Imports currency."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from agentflow.budget.currency import Limits


class Raises:
    """What a tree has to tell its ledger, and how often its limits were changed. Safe for many threads."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._untold: dict[str, Limits] = {}

    def note(self, id: str, limits: Limits, *, changed: bool = True) -> None:
        """The account of this id has these limits now; not ``changed`` when a ledger may only remember others."""
        with self._lock:
            self._untold[id] = limits
            self.count += int(changed)

    def take(self) -> dict[str, Limits]:
        """What ledgers were not told of yet, by the ids of the accounts."""
        with self._lock:
            untold, self._untold = self._untold, {}
            return untold

    def put_back(self, limits: Mapping[str, Limits]) -> None:
        """A ledger could not be told of these; it is told the next time. What was noted meanwhile is newer."""
        with self._lock:
            self._untold = {**limits, **self._untold}
