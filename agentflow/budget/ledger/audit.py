"""Audit: every account counted again from its entries, as an auditor would. Imports base."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agentflow.budget.currency import COUNTED, NOTHING, Currency, format_amount
from agentflow.budget.ledger.base import AccountState, Entry


@dataclass(frozen=True, slots=True)
class Finding:
    """An account whose counter is not what its entries sum to, in the unit that is counted."""

    account: str
    what: str
    currency: Currency
    recorded: int
    counted: int

    def __str__(self) -> str:
        """For people: ``'acme@2026-11-21': $4.00 spent are recorded, its entries sum to $4.10``."""
        recorded, counted = format_amount(self.currency, self.recorded), format_amount(self.currency, self.counted)
        return f"'{self.account}': {recorded} {self.what} are recorded, its entries sum to {counted}"


def audit(entries: Iterable[Entry], accounts: Iterable[AccountState]) -> list[Finding]:
    """Where accounts and entries differ.

    Args:
        entries: all of them.
        accounts: as they stood at the same moment.
    """
    held: dict[str, list[int]] = {}
    spent: dict[str, list[int]] = {}
    for entry in entries:
        for id in entry.accounts:
            if entry.state == "held":
                _add(held.setdefault(id, list(NOTHING)), entry.held.amounts)
            elif entry.spend is not None:
                _add(spent.setdefault(id, list(NOTHING)), entry.spend.amounts)
    findings: list[Finding] = []
    for state in accounts:
        account = state.account
        for what, recorded, counted in (("held", account.held, held), ("spent", account.spent, spent)):
            sums = counted.get(account.id, NOTHING)
            findings += [
                Finding(account.id, what, currency, recorded[place], sums[place])
                for place, currency in enumerate(COUNTED)
                if recorded[place] != sums[place]
            ]
    return findings


def _add(sums: list[int], amounts: tuple[int, ...]) -> None:
    for place, amount in enumerate(amounts):
        sums[place] += amount
