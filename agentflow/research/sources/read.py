"""The door of the sources room: paths, folders and addresses in, a Reading out."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from agentflow.errors import FetchRefused, SourceError
from agentflow.research.sources.files import Walk, in_thread, parse_file, read_files, walk
from agentflow.research.sources.parsing import Parsers
from agentflow.research.sources.scope import ANYTHING, Scope
from agentflow.research.sources.source import (
    MEGABYTE,
    Extracted,
    Reading,
    ReadLimits,
    Skipped,
    Source,
    is_page,
    printable,
)
from agentflow.research.sources.store import sha256_of

_BATCH = 64
_PAGES_AT_ONCE = 8
_SHOWN_CHARS = 200
OnRead = Callable[[Source], None]


async def read_sources(
    origins: Sequence[str],
    *,
    limits: ReadLimits | None = None,
    scope: Scope = ANYTHING,
    on_read: OnRead | None = None,
) -> Reading:
    """Read everything that ``origins`` name.

    A source named outright must be readable; one found inside a folder is skipped with a reason when it is not.
    The same text found twice is kept once. What ``scope`` leaves out for its day is skipped with that reason, also when
    it was named outright.

    Args:
        origins: paths of files and folders, and http(s) addresses.
        limits: bounds; the defaults when None.
        scope: which domains and days, and whether the network at all.
        on_read: told of each source as it is read.

    Returns:
        Sources numbered s1, s2, … in the order asked for, folders in sorted order.

    Raises:
        SourceError: a named source cannot be read, or there is nothing to read.
        FetchRefused: ``scope`` or its address forbids that a page is fetched.
    """
    if not origins:
        raise SourceError("No sources given. Name files, folders or http(s) addresses to read.")
    limits = limits or ReadLimits()
    shelf = _Shelf(scope, on_read)
    async with Parsers(limits) as parsers:
        addresses = [origin for origin in origins if is_page(origin)]
        pages = await _fetch_all(addresses, limits, parsers, scope)
        for origin in origins:
            if is_page(origin):
                shelf.add(origin, pages[origin])
            else:
                await _read_path(origin, limits, parsers, shelf)
    # That none is of the days asked for is an answer, and no fault of who asked.
    if not shelf.sources and not any(skipped.cause in ("date", "undated") for skipped in shelf.skipped):
        reasons = "; ".join(f"{s.origin}: {s.reason}" for s in shelf.skipped[:3]) or "no files in it"
        named = printable(", ".join(origins))[:_SHOWN_CHARS]
        raise SourceError(f"Nothing to read in {named} ({reasons}). Name files with text in them.")
    return Reading(tuple(shelf.sources), tuple(shelf.skipped))


def keep_sources(sources: Sequence[Source], scope: Scope = ANYTHING) -> Reading:
    """Sources that were read before, as a reading of their own: nothing is fetched, and ``scope`` holds for them too.

    Returns:
        Those that ``scope`` allows, numbered s1, s2, … anew, with the time at which they were read; and the others.
    """
    kept: list[Source] = []
    skipped: list[Skipped] = []
    for source in sources:
        left_out = scope.left_out(source.date)
        if left_out is not None:
            skipped.append(Skipped(source.origin, left_out[1], left_out[0]))
            continue
        try:
            if is_page(source.origin):
                scope.check(source.origin)
        except FetchRefused as refused:
            skipped.append(Skipped(source.origin, str(refused).rstrip("."), "domain"))
            continue
        kept.append(replace(source, id=f"s{len(kept) + 1}"))
    return Reading(tuple(kept), tuple(skipped))


def estimated_bytes(origins: Sequence[str], limits: ReadLimits | None = None) -> int:
    """About how many bytes reading these will go through; a page counts as one megabyte. Never raises."""
    limits = limits or ReadLimits()
    total = 0
    for origin in origins:
        # A path that cannot be looked at costs nothing to read; reading it says what is wrong.
        with contextlib.suppress(OSError, ValueError, RuntimeError, SourceError):
            if is_page(origin):
                total += MEGABYTE
                continue
            path = Path(origin).expanduser()
            files = walk(path, limits).files if path.is_dir() else [path]
            total += sum(os.stat(file).st_size for file in files)
    return total


@dataclass(slots=True)
class _Shelf:
    """Sources as they come in: numbered, hashed, without doubles, of the days asked for."""

    scope: Scope
    on_read: OnRead | None
    sources: list[Source] = field(default_factory=list["Source"])
    skipped: list[Skipped] = field(default_factory=list["Skipped"])
    _seen: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, origin: str, found: Extracted) -> None:
        origin = printable(origin)
        left_out = self.scope.left_out(found.date)
        if left_out is not None:
            cause, reason = left_out
            self.skipped.append(Skipped(origin, reason, cause))
            return
        sha256 = sha256_of(found.text)
        if sha256 in self._seen:
            self.skipped.append(Skipped(origin, f"same text as {self._seen[sha256]}", "double"))
            return
        self._seen[sha256] = origin
        read_at = datetime.now(UTC).isoformat(timespec="seconds")
        number = len(self.sources) + 1
        source = Source(
            f"s{number}", origin, printable(found.title), found.text, sha256, read_at, found.media_type, found.date
        )
        self.sources.append(source)
        if self.on_read is not None:
            self.on_read(source)


async def _read_path(origin: str, limits: ReadLimits, parsers: Parsers, shelf: _Shelf) -> None:
    named = await asyncio.to_thread(_named, origin, limits)
    if isinstance(named, Path):
        (found,) = await _read_batch([named], limits, parsers)
        if isinstance(found, SourceError):
            raise found
        shelf.add(str(named), found)
        return
    shelf.skipped += named.skipped
    # A batch per thread hop: a thread for each of 20,000 small files would cost more than reading them.
    for start in range(0, len(named.files), _BATCH):
        batch = named.files[start : start + _BATCH]
        for file, found in zip(batch, await _read_batch(batch, limits, parsers), strict=True):
            if isinstance(found, SourceError):
                name = printable(str(file))
                shelf.skipped.append(Skipped(name, str(found).removeprefix(f"{name} ")))
            else:
                shelf.add(str(file), found)


async def _read_batch(batch: Sequence[Path], limits: ReadLimits, parsers: Parsers) -> list[Extracted | SourceError]:
    texts = await in_thread(partial(read_files, batch, limits))
    async with asyncio.TaskGroup() as group:
        parsing = {
            file: group.create_task(parse_file(file, limits, parsers))
            for file, found in zip(batch, texts, strict=True)
            if found is None
        }
    return [found or parsing[file].result() for file, found in zip(batch, texts, strict=True)]


def _named(origin: str, limits: ReadLimits) -> Path | Walk:
    """The file that was named, or all that the named folder holds."""
    shown = printable(origin)[:_SHOWN_CHARS]
    try:
        path = Path(origin).expanduser()
        if path.exists():
            return walk(path, limits) if path.is_dir() else path
        broken = " (a link that leads nowhere)" if path.is_symlink() else ""
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise SourceError(f"{shown} cannot be opened: {reason}. Check the path.") from error
    raise SourceError(f"{shown} does not exist{broken}. Check the path.")


async def _fetch_all(
    addresses: Sequence[str], limits: ReadLimits, parsers: Parsers, scope: Scope
) -> dict[str, Extracted]:
    if not addresses:
        return {}
    # aiohttp is slow to import; a job that reads only files does without it.
    from agentflow.research.sources.pages import read_page

    slots = asyncio.Semaphore(_PAGES_AT_ONCE)
    pages: dict[str, Extracted] = {}

    async def fetch(address: str) -> None:
        async with slots:
            pages[address] = await read_page(address, limits, parsers, scope)

    try:
        async with asyncio.TaskGroup() as group:
            for address in dict.fromkeys(addresses):
                group.create_task(fetch(address))
    except* SourceError as errors:
        raise errors.exceptions[0] from None
    return pages
