"""``agentflow budget verify``: every account counted again from the entries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from agentflow.budget.ledger.audit import Finding
from agentflow.cli.budget.ledger import ledger_options, recorded


@click.command("verify")
@ledger_options
def command(config: Path | None, file: Path | None) -> int:
    """Count every account again from the entries, and say where the two differ; exit code 1 when they do."""
    findings, accounts = asyncio.run(_verify(config, file))
    for finding in findings:
        click.echo(str(finding))
    click.echo(f"{accounts:,} accounts counted again, {len(findings):,} differences.")
    return 1 if findings else 0


async def _verify(config: Path | None, file: Path | None) -> tuple[Sequence[Finding], int]:
    async with recorded(config, file) as ledger:
        return await ledger.audit(), len(await ledger.accounts())
