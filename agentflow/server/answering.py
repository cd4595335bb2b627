"""Responses whose making is the work: begun when it is known how they begin, ended when the client goes.

A client that hangs up ends the call that is being paid for. Imports problems, Starlette.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentflow.errors import AgentflowError
from agentflow.server.problems import Problem


@dataclass(frozen=True, slots=True)
class Head:
    """How a response begins."""

    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    status: int = 200


Work = Callable[[], AsyncGenerator[Head | bytes]]
"""Makes a response: its head first, then its body in parts."""


class WorkedResponse(Response):
    """A response made by work, in one task from beginning to end.

    What the work raises before its head becomes a problem; what it raises later ends the response, after the bytes
    that ``apology`` makes of it.

    Args:
        work: makes the response.
        apology: the last bytes of a response that failed on its way.
        refused: told of every problem.
    """

    def __init__(
        self,
        work: Work,
        apology: Callable[[Problem], bytes] = lambda _: b"",
        refused: Callable[[AgentflowError], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._work = work
        self._apology = apology
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Work until it is done, or the client has gone."""
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._send(scope, receive, send))
            watching = group.create_task(_gone(receive))
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            watching.cancel()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            async with aclosing(self._work()) as parts:
                async for part in parts:
                    if isinstance(part, Head):
                        await send(_start(part))
                        begun = True
                    else:
                        await send({"type": "http.response.body", "body": part, "more_body": True})
            last = b""
        except (AgentflowError, Problem) as error:
            if isinstance(error, AgentflowError):
                self._refused(error)
            problem = error if isinstance(error, Problem) else Problem.of(error)
            if not begun:
                await problem.response()(scope, receive, send)
                return
            last = self._apology(problem)
        await send({"type": "http.response.body", "body": last, "more_body": False})


def _start(head: Head) -> dict[str, object]:
    headers = {"content-type": head.media_type, **head.headers}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": head.status, "headers": raw}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
