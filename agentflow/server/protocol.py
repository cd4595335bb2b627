"""HTTP/1.1 as uvicorn speaks it, with a bound on the time that a request's headers may take. Imports uvicorn.

uvicorn bounds how long a connection may idle between requests, but not how slowly a request may come.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient_protocol(header_timeout_s: float) -> type[asyncio.Protocol]:
    """A protocol that closes connections whose headers take longer than this, in seconds."""
    return type("BoundedProtocol", (PatientProtocol,), {"header_timeout_s": header_timeout_s})


class PatientProtocol(H11Protocol):
    """One connection. A clock runs from its opening, and from each further request, until headers are whole."""

    header_timeout_s: ClassVar[float] = 10.0

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request whose headers are whole has a cycle of its own."""
        before: Any = self.cycle
        if self._patience is None and (before is None or before.response_complete):
            self._wait()
        super().data_received(data)
        if self.cycle is not before:
            self._stop()

    def _wait(self) -> None:
        self._patience = self.loop.call_later(self.header_timeout_s, self._give_up)

    def _stop(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.close()
