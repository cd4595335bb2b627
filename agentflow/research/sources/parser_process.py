"""The process that parses: documents in on standard input, their text out on standard output.

``parsing`` starts it, and ends it when a document takes too long. What passes between them is a line of JSON and
the bytes it announces, each way; nothing that a hostile document could turn into code.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any, BinaryIO

from agentflow.errors import SourceError
from agentflow.research.sources.extract import extract
from agentflow.research.sources.source import MEGABYTE, ReadLimits, date_facts


def main() -> None:
    """Answer documents until standard input ends."""
    # A library that prints must not be taken for a reply.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        answer(asked, sys.stdin.buffer.read(asked["bytes"]), replies)


def answer(asked: dict[str, Any], data: bytes, replies: BinaryIO) -> None:
    """Write the text of one document, or why there is none."""
    limits = ReadLimits(**asked["limits"])
    _bound_memory(limits.max_parser_bytes)
    try:
        found = extract(data, asked["media_type"], asked["name"], limits, charset=asked["charset"])
        body = found.text.encode("utf-8")
        head = {"title": found.title, "media_type": found.media_type, "bytes": len(body), **date_facts(found.date)}
    except SourceError as error:
        head, body = {"error": str(error)}, b""
    except MemoryError:
        too_much = f"needs more than {limits.max_parser_bytes / MEGABYTE:,.0f} MB of memory to be read"
        head, body = {"error": too_much}, b""
    replies.write(json.dumps(head).encode("ascii") + b"\n")
    replies.write(body)
    replies.flush()


def _bound_memory(size: int) -> None:
    # Windows has no such bound, and macOS does not keep it; the time limit holds everywhere.
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size, hard))


if __name__ == "__main__":
    main()
