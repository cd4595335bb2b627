"""``agentflow budget accounts``: what each account may spend, has spent, holds and has left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from agentflow.budget.account import Account
from agentflow.budget.currency import COUNTED, format_amount
from agentflow.budget.ledger import AccountState
from agentflow.cli.budget.ledger import ledger_options, recorded


@click.command("accounts")
@click.argument("prefix", default="")
@click.option("--all", "everything", is_flag=True, help="Accounts without a limit, too.")
@ledger_options
def command(prefix: str, everything: bool, config: Path | None, file: Path | None) -> None:
    """List accounts whose id begins with PREFIX: tenants, their days and months, jobs, chains.

    An account with limits has a line for each of them. One that an overrun has closed says why.
    """
    states = [state for state in asyncio.run(_accounts(config, file)) if state.account.id.startswith(prefix)]
    chosen = [state for state in states if everything or _limited(state.account)]
    hidden = len(states) - len(chosen)
    if chosen:
        _print(chosen)
    else:
        click.echo(f"No account with a limit begins with '{prefix}'." if prefix else "No account has a limit.")
    if hidden:
        click.echo(f"{hidden:,} without a limit: see them with --all.")


async def _accounts(config: Path | None, file: Path | None) -> Sequence[AccountState]:
    async with recorded(config, file) as ledger:
        await ledger.recover()
        return await ledger.accounts()


def _print(states: Sequence[AccountState]) -> None:
    from agentflow.cli.budget.tables import console, shown, table

    out = console()
    listed = table("account", "currency", "limit", "spent", "held", "left", words=2)
    for state in states:
        name = shown(state.account.id)
        for row in _rows(state.account):
            listed.add_row(name, *row)
            name = ""
    out.print(listed)
    for state in states:
        if state.account.closed:
            out.print(f"'{shown(state.account.id)}' {state.account.closed}.", markup=False)


def _rows(account: Account) -> Iterator[tuple[str, str, str, str, str]]:
    """A row for each limit; for an account without one, what it has spent."""
    limited = _limited(account)
    for place, currency in enumerate(COUNTED):
        limit, spent, held = account.limits[place], account.spent[place], account.held[place]
        if limit is None:
            if not limited and (spent or held):
                yield currency, "-", format_amount(currency, spent), format_amount(currency, held), "-"
            continue
        left = 0 if account.closed else max(limit - spent - held, 0)
        limit_text, *texts = (format_amount(currency, amount) for amount in (limit, spent, held, left))
        yield currency, limit_text, texts[0], texts[1], texts[2]


def _limited(account: Account) -> bool:
    return any(limit is not None for limit in account.limits)
