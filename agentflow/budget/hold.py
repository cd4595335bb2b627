"""Hold: a reservation at a node and all its ancestors, until it is settled or released. Imports spend."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from agentflow.budget.spend import Quote, Spend

if TYPE_CHECKING:
    from agentflow.budget.line import Line
    from agentflow.budget.meter import Meter


class Hold:
    """What a meter has reserved for one call.

    It remembers the accounts it was reserved at: a call that a day's end overtakes is charged to the day it was held
    on. Ending it a second time changes nothing, so a ``finally`` may always release.
    """

    __slots__ = ("line", "node", "open", "quote")

    def __init__(self, node: Meter, quote: Quote, line: Line) -> None:
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
