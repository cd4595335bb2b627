"""The ledger: the record of holds, settles and finished calls, keyed by (job, call path, attempt)."""

from agentflow.budget.ledger.base import AccountState, Entry, EntryFilter, Labels, Ledger, Opening
from agentflow.budget.ledger.memory import MemoryLedger
from agentflow.budget.ledger.opening import open_ledger

__all__ = ["AccountState", "Entry", "EntryFilter", "Labels", "Ledger", "MemoryLedger", "Opening", "open_ledger"]
