"""A call whose reply is read as it comes. May import messages and reply; ``chain`` opens it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from agentflow.cascade.reply import Reply
from agentflow.errors import UsageError
from agentflow.messages import Delta


class ReplyStream:
    """The pieces of a reply's text, and then the whole reply.

    Text is passed on as a model writes it where no other rung can follow; where a reply must first be judged against
    others, it comes in one piece once it is decided. Leaving the block early ends the call, and charges what it used.

    Args:
        ask: makes the call, and tells of each piece.

    Example:
        >>> async with chain.stream("Tell me of the meter.") as stream:     # doctest: +SKIP
        ...     async for text in stream:
        ...         print(text, end="")
        ...     print(stream.reply.rung, stream.reply.spend)
    """

    def __init__(self, ask: Callable[[Callable[[Delta], None]], Awaitable[Reply[str]]]) -> None:
        self._ask = ask
        self._pieces: asyncio.Queue[Delta | None] = asyncio.Queue()
        self._group = asyncio.TaskGroup()
        self._call: asyncio.Task[None] | None = None
        self._reply: Reply[str] | None = None
        self._error: Exception | None = None

    @property
    def reply(self) -> Reply[str]:
        """The whole reply.

        Raises:
            UsageError: it has not been read to its end.
        """
        if self._reply is None:
            raise UsageError("The reply is not whole yet. Read the stream to its end first.")
        return self._reply

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._call = self._group.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call is not None:
            self._call.cancel()
        await self._group.__aexit__(None, None, None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not None:
            yield piece.text
        self._pieces.put_nowait(None)
        if self._error is not None:
            raise self._error

    async def _run(self) -> None:
        try:
            self._reply = await self._ask(self._pieces.put_nowait)
        except Exception as error:
            self._error = error
        finally:
            self._pieces.put_nowait(None)
