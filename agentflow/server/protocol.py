"""HTTP/1.1 as uvicorn speaks it, with bounds on how many connections there are, and how slow each may be.

uvicorn bounds how long a connection may idle between requests, but not how slowly a request may come, nor how slowly
its response may be taken. Imports uvicorn, guard, problems.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentflow.config import ServerSettings
from agentflow.server.guard import FULL, SECURITY
from agentflow.server.problems import INVALID, Problem


def patient_protocol(settings: ServerSettings) -> type[asyncio.Protocol]:
    """A protocol that holds connections to these bounds."""
    return type("BoundedProtocol", (PatientProtocol,), {"settings": settings})


class PatientProtocol(H11Protocol):
    """One connection.

    A clock runs from its opening, and from each further request, until headers are whole; another while the client
    takes nothing of what it is sent.
    """

    settings: ClassVar[ServerSettings] = ServerSettings()

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._sending: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request whose headers are whole has a cycle of its own."""
        before: Any = self.cycle
        if self._sending is None and (before is None or before.response_complete):
            self._wait()
        super().data_received(data)
        if self.cycle is not before:
            self._stop()

    def handle_events(self) -> None:
        """Serve what has come, knowing whether there are too many connections."""
        if len(self.connections) > self.settings.max_connections:
            self.app_state = {**self.app_state, FULL: True}
        super().handle_events()

    def pause_writing(self) -> None:
        """The client takes nothing for now."""
        super().pause_writing()
        if self._taking is None:
            # What is still to be sent would keep a connection that is closed in order.
            self._taking = self.loop.call_later(self.settings.body_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken most of what it was sent."""
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, as a problem too."""
        response = Problem(INVALID, "What came is not HTTP/1.1 as this server reads it. Check the client.").response()
        headers = [*response.raw_headers, *SECURITY, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait(self) -> None:
        self._sending = self.loop.call_later(self.settings.header_timeout_s, self._give_up)

    def _stop(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _give_up(self) -> None:
        self._sending = None
        if not self.transport.is_closing():
            self.transport.close()
