"""``agentflow budget limits``: give an account other limits, and open it again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from agentflow.budget.budget import Budget
from agentflow.budget.currency import COUNTED, Limits, format_amount
from agentflow.cli.budget.ledger import ledger_options, recorded
from agentflow.errors import UsageError


@click.command("limits")
@click.argument("account")
@click.option("--usd", metavar="DOLLARS", help="Most dollars.")
@click.option("--joules", metavar="JOULES", help="Most joules.")
@click.option("--tokens", metavar="TOKENS", help="Most tokens.")
@click.option("--grams-co2e", metavar="GRAMS", help="Most grams of CO2 equivalent.")
@click.option("--calls", metavar="CALLS", help="Most attempts.")
@ledger_options
def command(account: str, config: Path | None, file: Path | None, **given: str | None) -> None:
    """Give ACCOUNT the limits that are named; the others stay. An account that an overrun closed is open again.

    Processes at work hold to the new limits with their next call. A tenant's limits in the configuration come back
    when the next process starts.
    """
    named: dict[str, Any] = {currency: text for currency, text in given.items() if text is not None}
    changed = Budget(**named)
    limits = asyncio.run(_change(account, changed, config, file))
    texts = [format_amount(c, limit) for c, limit in zip(COUNTED, limits, strict=True) if limit is not None]
    click.echo(f"'{account}' may spend {', '.join(texts) or 'without a limit'}, and is open.")


async def _change(id: str, changed: Budget, config: Path | None, file: Path | None) -> Limits:
    async with recorded(config, file) as ledger:
        found = await ledger.account(id)
        if found is None:
            raise UsageError(f"The ledger has no account '{id}'. List them with: agentflow budget accounts --all.")
        tokens, usd, joules, grams, calls = (
            old if new is None else new for old, new in zip(found.account.limits, changed.limits, strict=True)
        )
        limits: Limits = (tokens, usd, joules, grams, calls)
        await ledger.set_limits(id, limits)
        return limits
