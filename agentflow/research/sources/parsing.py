"""Documents parsed in processes of their own, which can be ended: a thread that hangs in C code cannot be.

A page of two megabytes can keep an HTML parser busy for minutes, and a PDF of 30 kB likewise. Imports extract,
source, errors; ``parser_process`` is the other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from agentflow.errors import SourceError
from agentflow.research.sources.extract import extract, is_parsed
from agentflow.research.sources.source import Extracted, ReadLimits, SourceDate

# The folder that holds the package is appended, not put in front: nothing there may pass for a standard module. For
# the same reason -P keeps the working folder off the path: what a user researches may hold a json.py.
_START = "import sys; sys.path.append(sys.argv[1]); from agentflow.research.sources.parser_process import main; main()"
_PACKAGE_IN = str(Path(__file__).parents[3])
# What is hostile gets no keys and no tokens: of the environment only what Python needs to start.
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SYSTEMROOT", "TMPDIR", "TEMP", "LD_LIBRARY_PATH")
_AT_ONCE = 2


class Parsers:
    """Up to two parsing processes, started when the first document needs one, ended with the ``async with`` block."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._idle: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            await _end(self._idle.pop())

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None, None]:
        """Wait until a process is free, so that bytes are loaded when they can be parsed and not before."""
        async with self._slots:
            yield

    async def extract(self, data: bytes, media_type: str, name: str, charset: str | None = None) -> Extracted:
        """Get the text out of a document: ``extract.extract`` with a limit on time and memory, inside a ``slot``.

        A process that is late, that dies, or whose caller is cancelled is killed; the next document gets a new one.

        Raises:
            SourceError: as ``extract.extract`` does; or it took too long, or too much memory.
        """
        if not is_parsed(media_type, data):
            return await asyncio.to_thread(extract, data, media_type, name, self._limits, charset=charset)
        process = self._idle.pop() if self._idle else await _start()
        whole = False
        try:
            async with asyncio.timeout(self._limits.parse_timeout_s):
                head, body = await self._ask(process, data, media_type, name, charset)
            whole = True
        except TimeoutError as error:
            limit = f"{self._limits.parse_timeout_s:g} s"
            raise SourceError(f"took longer than {limit} to parse; split it, or convert it to text") from error
        except (OSError, EOFError, ValueError) as error:
            raise SourceError("cannot be parsed: the parser broke down on it") from error
        finally:
            if whole:
                self._idle.append(process)
            else:
                await _end(process)
        if "error" in head:
            raise SourceError(str(head["error"]))
        return Extracted(body.decode("utf-8"), str(head["title"]), str(head["media_type"]), SourceDate.of(head))

    async def _ask(
        self, process: asyncio.subprocess.Process, data: bytes, media_type: str, name: str, charset: str | None
    ) -> tuple[dict[str, str | int], bytes]:
        assert process.stdin is not None and process.stdout is not None
        asked = {"media_type": media_type, "name": name, "charset": charset, "bytes": len(data)}
        process.stdin.write(json.dumps({**asked, "limits": asdict(self._limits)}).encode("ascii") + b"\n")
        process.stdin.write(data)
        await process.stdin.drain()
        head: dict[str, str | int] = json.loads(await process.stdout.readuntil(b"\n"))
        return head, await process.stdout.readexactly(int(head.get("bytes", 0)))


async def _start() -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-c",
            _START,
            _PACKAGE_IN,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        )
    except OSError as error:
        raise SourceError(f"cannot be parsed: no process could be started ({error.strerror or error})") from error


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    assert process.stdin is not None
    process.stdin.close()
    # Shielded: a caller that is cancelled once more while it waits still leaves nothing behind.
    await asyncio.shield(asyncio.ensure_future(process.wait()))
