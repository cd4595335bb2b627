"""Hold: a reservation at a node and all its ancestors, until it is settled or released. Imports line, spend."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from agentflow.budget.line import Line
from agentflow.budget.spend import Quote, Spend


class Holder(Protocol):
    """The node that granted a hold, and ends it."""

    def end(self, hold: Hold, spend: Spend | None) -> None:
        """Charge the spend, or nothing, in the place of what was held."""
        ...


class Hold:
    """What a meter has reserved for one call.

    It remembers the accounts it was reserved at: a call that a day's end overtakes is charged to the day it was held
    on. Ending it a second time changes nothing, so a ``finally`` may always release.
    """

    __slots__ = ("line", "node", "open", "quote")

    def __init__(self, node: Holder, quote: Quote, line: Line) -> None:
        self.node = node
        self.quote = quote
        self.line = line
        self.open = True

    def settle(self, spend: Spend) -> None:
        """Replace the reservation by what was really used, in full, even when that is more than was held."""
        self.node.end(self, spend)

    def release(self) -> None:
        """Give the reservation back: nothing was used."""
        self.node.end(self, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
