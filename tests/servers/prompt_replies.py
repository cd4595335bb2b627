"""A server that answers every chat completion alike, as fast as Python can: for benchmarks of what calls it.

``python -m tests.servers.prompt_replies`` prints its port. ``/MILLISECONDS/v1/chat/completions`` is answered that much
later, whole or as a stream, as the request asks. It reads requests just well enough for real clients: one at a time on
a connection, with Content-Length. ``/statistics`` says what it has answered, and in how much of its own CPU time.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

MODEL = "gpt-4o"
TEXT = "This is a reply of a dozen tokens, or of a few more."
USAGE = {"prompt_tokens": 12, "completion_tokens": 14, "total_tokens": 26}
_ENVELOPE: dict[str, Any] = {"id": "chatcmpl-1", "created": 0, "model": MODEL}
_ASKED = re.compile(rb"POST /(\d+)/v1/chat/completions ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')


def _head(kind: str, more: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}\r\n\r\n".encode()


def _json_response(data: Any) -> bytes:
    body = json.dumps(data).encode()
    return _head("application/json", f"Content-Length: {len(body)}") + body


def _event(**data: Any) -> bytes:
    return f"data: {json.dumps(_ENVELOPE | {'object': 'chat.completion.chunk'} | data)}\n\n".encode()


def _chunk(data: bytes) -> bytes:
    """Data in HTTP's chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _delta(finish: str | None = None, **delta: str) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


_MESSAGE = {"role": "assistant", "content": TEXT}
WHOLE = _json_response(
    _ENVELOPE
    | {"object": "chat.completion", "usage": USAGE}
    | {"choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}]}
)
STREAM = _head("text/event-stream", "Transfer-Encoding: chunked") + b"".join(
    map(
        _chunk,
        [
            _delta(role="assistant", content=TEXT[:26]),
            _delta(content=TEXT[26:]),
            _delta("stop"),
            _event(choices=[], usage=USAGE),
            b"data: [DONE]\n\n",
            b"",
        ],
    )
)


class Statistics:
    """What the server has done since it was last asked."""

    def __init__(self) -> None:
        self.answered = 0
        self.cpu_s = time.process_time()

    def take(self) -> bytes:
        answered, cpu_s = self.answered, time.process_time() - self.cpu_s
        self.__init__()
        return _json_response({"answered": answered, "cpu_s": cpu_s})


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._waiting = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        head, end, body = self._waiting.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._waiting = b""
        asked = _ASKED.match(head)
        if asked is None:
            self._transport.write(self._statistics.take())
            return
        self._loop.call_later(int(asked[1]) / 1000, self._answer, STREAM if _STREAM.search(body) else WHOLE)

    def _answer(self, reply: bytes) -> None:
        self._statistics.answered += 1
        self._transport.write(reply)


async def serve() -> None:
    statistics = Statistics()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(statistics), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
