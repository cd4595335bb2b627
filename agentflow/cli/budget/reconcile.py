"""``agentflow budget reconcile``: attempts whose cost is in doubt, and putting the true cost in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import click

from agentflow.budget.ledger import Entry, EntryFilter
from agentflow.budget.money import NANO, format_usd
from agentflow.budget.spend import Spend
from agentflow.cli.budget.ledger import ledger_options, recorded
from agentflow.energy.interval import Energy, format_joules
from agentflow.errors import UsageError
from agentflow.messages import TokenUsage


@click.command("reconcile")
@click.argument("key", required=False)
@click.option("--usd", metavar="DOLLARS", help="What the provider billed for it.")
@click.option(
    "--input", "input_tokens", type=click.IntRange(min=0), help="Prompt tokens, as the provider counted them."
)
@click.option("--output", "output_tokens", type=click.IntRange(min=0), help="Reply tokens.")
@click.option(
    "--joules", type=click.FloatRange(min=0), help="Joules, if they are known; else those that were held stay."
)
@click.option("--nothing", is_flag=True, help="The provider never got it: it cost nothing.")
@click.option("--note", default="", help="Where that is known from.")
@ledger_options
def command(
    key: str | None, usd: str | None, input_tokens: int | None, output_tokens: int | None, joules: float | None,
    nothing: bool, note: str, config: Path | None, file: Path | None,
) -> None:  # fmt: skip
    """List attempts in doubt, or put the true cost of one in the place of the worst case it was charged.

    Without KEY they are listed. What was held by processes that are no longer alive is put in doubt first.
    """
    if key is None:
        _print(asyncio.run(_doubted(config, file)))
        return
    if nothing == any(figure is not None for figure in (usd, input_tokens, output_tokens, joules)):
        raise UsageError("Give what it cost (--usd, --input, --output, --joules), or --nothing.")
    before, after = asyncio.run(
        _reconcile(key, None if nothing else _Bill(usd, input_tokens, output_tokens, joules), note, config, file)
    )
    click.echo(f"charged before: {before.spend}")
    click.echo(f"charged now:    {after.spend}")


class _Bill:
    """What is known of the true cost; what is not given stays as it was charged."""

    def __init__(self, usd: str | None, input: int | None, output: int | None, joules: float | None) -> None:
        self.nano_usd = None if usd is None else _nano(usd)
        self.input, self.output, self.joules = input, output, joules

    def over(self, charged: Spend) -> Spend:
        """The true cost, where it is known, over what was charged."""
        usage, energy = charged.usage, charged.energy
        tokens = TokenUsage(
            usage.input if self.input is None else self.input,
            usage.output if self.output is None else self.output,
            source="estimate" if self.input is None or self.output is None else "provider",
        )
        if self.joules is not None:
            energy = Energy(self.joules, self.joules, self.joules, "reported")
        nano_usd = charged.nano_usd if self.nano_usd is None else self.nano_usd
        return Spend(charged.calls, tokens, nano_usd, energy, charged.seconds, co2e=charged.co2e)


def _nano(usd: str) -> int:
    try:
        nano = Decimal(usd) * NANO
        if nano >= 0 and nano == nano.to_integral_value():
            return int(nano)
    except InvalidOperation:
        pass
    raise UsageError(f"'{usd}' is no amount of dollars. Give a number from 0 up, to at most nine decimals.")


async def _doubted(config: Path | None, file: Path | None) -> Sequence[Entry]:
    async with recorded(config, file) as ledger:
        await ledger.recover()
        return await ledger.entries(EntryFilter(state="in_doubt"))


async def _reconcile(
    key: str, bill: _Bill | None, note: str, config: Path | None, file: Path | None
) -> tuple[Entry, Entry]:
    async with recorded(config, file) as ledger:
        await ledger.recover()
        before = await ledger.find(key)
        if before is None or before.spend is None:
            raise UsageError(f"The ledger has no attempt '{key}' in doubt. List them with: agentflow budget reconcile.")
        return before, await ledger.reconcile(key, None if bill is None else bill.over(before.spend), note)


def _print(entries: Sequence[Entry]) -> None:
    if not entries:
        click.echo("No attempt is in doubt.")
        return
    from agentflow.cli.budget.tables import console, moment, shown, table

    listed = table("opened", "model", "call", "tokens", "dollars", "joules", words=3)
    out = console()
    for entry in entries:
        spend = entry.spend or Spend()
        what = f"{entry.labels.chain}/{entry.labels.call}".strip("/")
        listed.add_row(
            moment(entry.opened_ms), shown(entry.labels.model or entry.labels.rung), shown(what),
            f"{spend.tokens:,}", format_usd(spend.nano_usd), format_joules(spend.energy.mean),
        )  # fmt: skip
    out.print(listed)
    out.print("Their keys, in this order:")
    for entry in entries:
        out.print(shown(entry.key), markup=False, soft_wrap=True)
