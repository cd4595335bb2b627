"""Events: everything that happens in a job, in order, as lines of JSON. Imports nothing of agentflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. ``offset`` counts from 1; ``time`` is ISO 8601 in UTC."""

    offset: int
    time: str
    kind: str
    data: Mapping[str, Any]


class EventLog:
    """Events of one job, written to a file once there is one.

    Events from before the run folder exists are kept and written first, so the file is whole from offset 1.
    """

    def __init__(self) -> None:
        self._waiting: list[Event] = []
        self._file: TextIO | None = None
        self._offset = 0

    def emit(self, kind: str, data: Mapping[str, Any]) -> Event:
        """Record that something happened."""
        self._offset += 1
        event = Event(self._offset, datetime.now(UTC).isoformat(timespec="milliseconds"), kind, dict(data))
        if self._file is None:
            self._waiting.append(event)
        else:
            self._write(event)
        return event

    def write_to(self, path: Path) -> None:
        """From now on every event is a line of this file."""
        self._file = path.open("a", encoding="utf-8")
        for event in self._waiting:
            self._write(event)
        self._waiting.clear()

    def close(self) -> None:
        """Close the file. Closing twice changes nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, event: Event) -> None:
        if self._file is not None:
            line = {"offset": event.offset, "time": event.time, "kind": event.kind, **event.data}
            self._file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            self._file.flush()
