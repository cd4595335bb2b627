"""``agentflow cascade export``: the calls that a small model failed and a larger one answered, as JSON lines."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agentflow.budget.currency import MICRO
from agentflow.budget.ledger import Entry, EntryFilter
from agentflow.budget.money import decimal_text
from agentflow.cascade.escalations import EscalationLog
from agentflow.cli.budget.ledger import ledger_options, recorded
from agentflow.cli.budget.moments import milliseconds
from agentflow.config import load_settings
from agentflow.errors import UsageError

_OPT_IN = "Prompts are kept from now on with keep_prompts = true in [distillation] of agentflow.toml."


@click.command("export")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The file to write."
)
@click.option("--since", metavar="WHEN", help="From then on: 2026-11-21, 2026-11-21T08:30, 2026-11, 24h, 7d, 2w. UTC.")
@click.option("--cascade", metavar="NAME", help="Only this cascade's.")
@click.option("--with-content", is_flag=True, help="With prompts and replies, where they were kept: a fine-tuning set.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@ledger_options
def command(
    target: Path, since: str | None, cascade: str | None, with_content: bool, force: bool, config: Path | None,
    file: Path | None,
) -> None:  # fmt: skip
    """Write the calls that a small model failed and a larger one answered, a line each.

    With --with-content each line is a chat (messages, the last of them the larger model's reply) and its metadata:
    what the checks said, confidence, spend. Without, a line has ids and figures alone, from the ledger.
    """
    since_ms = None if since is None else milliseconds(since, datetime.now(UTC))
    if target.exists() and not force:
        raise UsageError(f"{target} is there already. Name another file, or replace it with --force.")
    if with_content:
        lines = list(_with_content(config, since_ms, cascade))
    else:
        lines = [line for line in asyncio.run(_figures(config, file, since_ms)) if cascade in (None, line["cascade"])]
    write_whole(target, (json.dumps(line, ensure_ascii=False) for line in lines))
    click.echo(f"{len(lines):,} calls in {target}", err=True)
    if not with_content:
        click.echo(f"Ids and figures alone: add --with-content for prompts and replies. {_OPT_IN}", err=True)


def write_whole(target: Path, lines: Iterable[str]) -> None:
    """Write a file of lines, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.")
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}. Check its folder.") from error
    try:
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as text:
            text.writelines(f"{line}\n" for line in lines)
            text.flush()
            os.fsync(handle)
        Path(name).replace(target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}. Check the disk's space.") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _with_content(config: Path | None, since_ms: int | None, cascade: str | None) -> Iterator[Mapping[str, Any]]:
    kept = load_settings(config).distillation
    if not kept.keep_prompts and not kept.path.is_dir():
        raise UsageError(f"No prompts are kept, so there is no content to export. {_OPT_IN}")
    since = None if since_ms is None else datetime.fromtimestamp(since_ms / 1000, UTC)
    for line in EscalationLog(kept.path, kept.days).read(since):
        if cascade in (None, line.get("cascade")):
            chat = {name: line[name] for name in ("messages", "tools") if name in line}
            yield {**chat, "metadata": {name: value for name, value in line.items() if name not in chat}}


async def _figures(config: Path | None, file: Path | None, since_ms: int | None) -> list[Mapping[str, Any]]:
    async with recorded(config, file) as ledger:
        return list(escalations(await ledger.entries(EntryFilter(since_ms=since_ms))))


def escalations(entries: Iterable[Entry]) -> Iterator[Mapping[str, Any]]:
    """The calls among some entries that a model failed and a later one passed, with their ids and figures."""
    calls: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.labels.kind == "model":
            # An attempt's key is its call's, and then which attempt of which rung it was.
            calls.setdefault(entry.key.rsplit("|", 2)[0], []).append(entry)
    for call, attempts in calls.items():
        passed = next((entry for entry in attempts if entry.outcome == "accepted"), None)
        if passed is None:
            continue
        before = attempts[: attempts.index(passed)]
        failed = [e for e in before if e.outcome in ("rejected", "kept") and e.labels.rung != passed.labels.rung]
        if failed:
            yield {
                "call": call, "at": datetime.fromtimestamp(passed.opened_ms // 1000, UTC).isoformat(),
                "cascade": passed.labels.cascade, "job": passed.labels.job, "agent": passed.labels.agent,
                "tenant": passed.labels.tenant, "name": passed.labels.call,
                "failed": [_figures_of(entry) for entry in failed], "passed": _figures_of(passed),
            }  # fmt: skip


def _figures_of(entry: Entry) -> dict[str, Any]:
    spend = entry.spend
    return {
        "rung": entry.labels.rung, "outcome": entry.outcome, "confidence": entry.score,
        "tokens": 0 if spend is None else spend.tokens,
        "usd": decimal_text(0 if spend is None else spend.nano_usd),
        "joules": 0.0 if spend is None else spend.microjoules / MICRO,
    }  # fmt: skip
