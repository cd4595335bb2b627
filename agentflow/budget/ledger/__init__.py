"""The ledger: the record of holds, settles and finished calls, keyed by (job, call path, attempt)."""

from agentflow.budget.ledger.base import Entry, Ledger
from agentflow.budget.ledger.memory import MemoryLedger

__all__ = ["Entry", "Ledger", "MemoryLedger"]
