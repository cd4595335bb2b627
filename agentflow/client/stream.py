"""Reading server-sent events: lines in, events out. Imports jobs.job."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.errors import ApiError
from agentflow.jobs.job import JobEvent

END = "end"


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream."""

    kind: str
    data: str

    def event(self) -> JobEvent | None:
        """The job's event, or None when it is a word about the stream (``gap``, ``end``).

        Raises:
            ApiError: the stream says that it broke off.
        """
        if self.kind == "error":
            raise ApiError("The server ended the stream with an error. Read on from the last number.")
        return None if self.kind in ("gap", END) else JobEvent.model_validate_json(self.data)


class Frames:
    """Puts lines together to frames."""

    def __init__(self) -> None:
        self._kind, self._data = "message", list[str]()

    def line(self, line: str) -> Frame | None:
        """Take a line; the frame that it ends, if it does."""
        if not line:
            frame = Frame(self._kind, "\n".join(self._data)) if self._data else None
            self._kind, self._data = "message", []
            return frame
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        return None
