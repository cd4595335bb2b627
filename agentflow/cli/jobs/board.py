"""Board: a job as its events tell of it, drawn live at a terminal: a row a sub-agent, its spend ticking. Imports rich.

It knows events alone, so it shows a job of this machine and one behind a server alike.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentflow.budget.money import format_usd
from agentflow.energy.interval import format_joules
from agentflow.jobs.job import JobEvent
from agentflow.research.rendering.numbering import clean

if TYPE_CHECKING:
    from rich.console import Group

# The latest events, under the table.
_SHOWN: Final = 6
_COLUMNS: Final = ("sub-agent", "state", "calls", "tokens", "dollars", "joules", "seconds", "rung")
_LEFT: Final = ("sub-agent", "state", "rung")


@dataclass(slots=True)
class _Part:
    """What one sub-agent did so far."""

    state: str = ""
    rung: str = ""
    calls: int = 0
    tokens: int = 0
    nano_usd: int = 0
    joules: float = 0.0
    seconds: float = 0.0

    def cells(self, name: str) -> tuple[str, ...]:
        return (
            clean(name), self.state, str(self.calls or ""), f"{self.tokens:,}", format_usd(self.nano_usd),
            format_joules(self.joules), f"{self.seconds:.1f}", clean(self.rung),
        )  # fmt: skip


@dataclass(slots=True)
class Board:
    """What the live view of one job shows.

    Args:
        job: its id.
    """

    job: str
    state: str = ""
    _parts: dict[str, _Part] = field(default_factory=dict[str, _Part])
    _latest: deque[str] = field(default_factory=lambda: deque[str](maxlen=_SHOWN))
    _since: float = field(default_factory=time.monotonic)

    def told(self, event: JobEvent, line: str) -> None:
        """Take in an event, which reads as this line."""
        data = event.data
        match event.kind:
            case "state":
                self.state = " ".join(str(data[key]) for key in ("state", "stop_reason") if data.get(key))
                if data.get("worker") or data.get("state") in ("queued", "recovering"):
                    # Another run begins: what is done already is told again, marked as replayed.
                    self._parts = {}
            case "task":
                self._part(str(data.get("task"))).state = str(data.get("step"))
            case "attempt":
                part = self._part(str(data.get("chain")).rsplit("/", 1)[-1])
                part.rung = str(data.get("rung"))
                part.calls += 1
                part.tokens += int(data.get("tokens") or 0)
                part.nano_usd += int(data.get("nano_usd") or 0)
                part.joules += float(data.get("joules") or 0.0)
                part.seconds += float(data.get("seconds") or 0.0)
            case _:
                pass
        if event.kind not in ("attempt", "task"):
            self._latest.append(line)

    def view(self) -> Group:
        """The view at this moment."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in _COLUMNS:
            table.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=True)
        # The display's thread reads what the other one writes: copies, taken in one step.
        for name, part in list(self._parts.items()):
            table.add_row(*map(Text, part.cells(name)))
        head = Text(f"{self.job}  {self.state}  watched for {time.monotonic() - self._since:.0f} s")
        latest = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in list(self._latest)]
        return Group(head, table, *latest)

    def _part(self, name: str) -> _Part:
        return self._parts.setdefault(name, _Part())
