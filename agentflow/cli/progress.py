"""Live progress of a job on stderr: a row a sub-agent, its spend ticking; plain lines where there is no terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agentflow.budget.meter import Meter
from agentflow.budget.money import format_usd
from agentflow.energy.interval import format_joules
from agentflow.jobs.events import Event

if TYPE_CHECKING:
    from rich.table import Table

Observe = Callable[[Event, Meter], None]


@contextmanager
def show_progress(*, quiet: bool, lines: bool = False) -> Generator[Observe | None]:
    """Show a job's events as they come.

    Args:
        quiet: show nothing.
        lines: show plain lines even at a terminal, because something else is written there too.

    Yields:
        The observer to hand to the job, or None when nothing is shown.
    """
    if quiet:
        yield None
    elif not lines and sys.stderr.isatty() and not os.environ.get("CI"):
        from rich.console import Console
        from rich.live import Live

        board = _Board()
        with Live(console=Console(stderr=True), get_renderable=board.table, refresh_per_second=10, transient=True):
            yield board.observe
    else:
        yield _print_line


def _print_line(event: Event, job: Meter) -> None:
    spent = job.spent
    figures = f"{spent.tokens:,} tokens, {format_usd(spent.nano_usd)}, {format_joules(spent.energy.mean)}"
    bill = f"{figures}, {spent.seconds:.2f} s"
    data = event.data
    match event.kind:
        case "sources.read":
            line = f"{data['sources']} sources read, {data['skipped']} skipped"
        case "task.ended" | "task.failed":
            line = f"{data['task']} {event.kind.removeprefix('task.')} ({bill})"
        case "budget.refused" | "budget.warning" | "budget.overrun" | "budget.closed":
            line = str(data["message"])
        case _:
            return
    print(line, file=sys.stderr)


class _Board:
    """What the live table shows; read by the display's thread ten times a second."""

    def __init__(self) -> None:
        self._job: Meter | None = None
        self._states: dict[str, str] = {}
        self._rungs: dict[str, str] = {}

    def observe(self, event: Event, job: Meter) -> None:
        self._job = job
        if event.kind.startswith("task."):
            self._states[str(event.data["task"])] = event.kind.removeprefix("task.")
        elif event.kind == "attempt":
            self._rungs[str(event.data["chain"]).rsplit("/", 1)[-1]] = str(event.data["rung"])

    def table(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("sub-agent", "state", "tokens", "held", "dollars", "joules", "seconds", "rung"):
            table.add_column(
                column, justify="left" if column in ("sub-agent", "state", "rung") else "right", no_wrap=True
            )
        for node in self._job.children if self._job is not None else []:
            facts = node.statistics()
            spent = facts.spent
            table.add_row(
                node.name,
                "working" if self._states.get(node.name) == "started" else self._states.get(node.name, ""),
                f"{spent.tokens:,}",
                f"{facts.held[0]:,}" if facts.open_holds else "",
                format_usd(spent.nano_usd),
                format_joules(spent.energy.mean),
                f"{spent.seconds:.1f}",
                self._rungs.get(node.name, ""),
            )
        return table
