"""Reading server-sent events: bytes in, events out, and how far a reader has come. Imports calls, jobs.job."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
from pydantic import ValidationError

from agentflow.client import calls
from agentflow.errors import ApiError
from agentflow.jobs.job import JobEvent

_END, _GAP, _ERROR = "end", "gap", "error"
_BREAK: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream."""

    kind: str
    data: str


class Frames:
    """Puts bytes together to frames. Lines end where the format says, and nowhere else."""

    def __init__(self) -> None:
        self._rest = b""
        self._kind, self._data = "message", list[str]()
        self.signs = 0
        """How many frames and comments have come."""

    def take(self, piece: bytes) -> Iterator[Frame]:
        """Take some bytes; the frames that they end."""
        *lines, self._rest = _BREAK.split(self._rest + piece)
        for line in lines:
            frame = self._line(line.decode("utf-8", "replace"))
            if frame is not None:
                self.signs += 1
                yield frame

    def _line(self, line: str) -> Frame | None:
        if not line:
            frame = Frame(self._kind, "\n".join(self._data)) if self._data else None
            self._kind, self._data = "message", []
            return frame
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.signs += 1
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        return None


class Reading:
    """How far a reader of a job's events has come, over as many streams as it takes.

    Args:
        job: whose events they are.
        since: the number of the last event that is known.
    """

    def __init__(self, job: str, since: int) -> None:
        self._job = job
        self._since = since
        self._breaks = 0
        self._frames = Frames()
        self.ended = False

    @property
    def request(self) -> dict[str, Any]:
        """What asks for the rest of the events."""
        headers = {"Accept": "text/event-stream"}
        return {"url": f"{calls.get(self._job).path}/events", "params": {"since": self._since}, "headers": headers}

    def opened(self) -> None:
        """Begin with a new stream."""
        self._frames = Frames()

    def take(self, piece: bytes) -> Iterator[JobEvent]:
        """Take bytes of the stream; the events among them that are new.

        Raises:
            AgentflowError: the server says that there is no going on.
            Broken: the server says that there is, later.
        """
        for frame in self._frames.take(piece):
            if frame.kind == _END:
                self.ended = True
                return
            if frame.kind == _ERROR:
                raise _told(frame)
            if frame.kind == _GAP:
                continue
            event = _event(frame)
            if event.number > self._since:
                self._since = event.number
                yield event

    def refused(self, response: httpx.Response) -> None:
        """Judge an answer that is no stream.

        Raises:
            AgentflowError: asking again will not help.
        """
        if calls.pause_before_again(response, self._breaks) is None:
            raise calls.error_of(response)

    def broke_off(self) -> float:
        """Seconds to wait before the next stream.

        Raises:
            ApiError: too many in a row brought nothing.
        """
        self._breaks = 0 if self._frames.signs else self._breaks + 1
        self._frames = Frames()
        if self._breaks >= calls.BREAKS:
            raise ApiError(
                f"The events of '{self._job}' broke off after number {self._since}. Read on from there later."
            )
        return calls.pause_s(self._breaks)


class Broken(Exception):
    """The server ended a stream that can be taken up again."""


def _told(frame: Frame) -> Exception:
    problem = json.loads(frame.data or "{}")
    return Broken() if problem.get("retryable") else calls.error_from(problem, int(problem.get("status", 0)))


def _event(frame: Frame) -> JobEvent:
    try:
        return JobEvent.model_validate_json(frame.data, extra="ignore")
    except ValidationError as error:
        raise ApiError(f"The server's event '{frame.kind[:40]}' cannot be read. Is it of a later version?") from error
