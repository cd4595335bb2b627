"""Files and folders: what is there, in a fixed order, and its bytes. Imports extract, parsing, source, errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TypeVar

from agentflow.errors import SourceError
from agentflow.research.sources.extract import extract, is_parsed, media_type_of
from agentflow.research.sources.parsing import Parsers
from agentflow.research.sources.source import MEGABYTE, Extracted, ReadLimits, Skipped, SourceDate, printable

_PASSED_OVER = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
T = TypeVar("T")


@dataclass(slots=True)
class Walk:
    """What a folder holds: files to read in sorted order, and what was found and cannot be."""

    files: list[Path] = field(default_factory=list[Path])
    skipped: list[Skipped] = field(default_factory=list["Skipped"])


def walk(folder: Path, limits: ReadLimits) -> Walk:
    """Everything below a folder, in sorted order.

    Hidden entries, caches and virtual environments are passed over without a word. Links are followed as long as
    they stay inside the folder; each file and folder is visited once, under its first name, so a loop ends.

    Raises:
        SourceError: more files than the limit.
    """
    found = Walk()
    inside = os.path.realpath(folder)
    for path in _files(str(folder), inside, inside, {inside}, found.skipped):
        found.files.append(Path(path))
        if len(found.files) > limits.max_files:
            raise SourceError(
                f"{printable(str(folder))} holds more than {limits.max_files:,} files. "
                "Name fewer, or raise max_files under [sources] in agentflow.toml."
            )
    return found


def _files(folder: str, real_folder: str, inside: str, seen: set[str], skipped: list[Skipped]) -> Iterator[str]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        skipped.append(Skipped(printable(folder), f"cannot be opened: {error.strerror or error}"))
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _PASSED_OVER or entry.name.endswith(".egg-info"):
            continue
        real = os.path.join(real_folder, entry.name)
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            reason = _why_not_followed(real, inside)
            if reason is not None:
                skipped.append(Skipped(printable(entry.path), reason))
                continue
        if real in seen:
            continue
        seen.add(real)
        if entry.is_dir():
            yield from _files(entry.path, real, inside, seen, skipped)
        elif entry.is_file():
            yield entry.path


def _why_not_followed(real: str, inside: str) -> str | None:
    if not os.path.exists(real):
        return "is a link that leads nowhere"
    if real != inside and not real.startswith(inside.rstrip(os.sep) + os.sep):
        return "is a link that leads out of the folder"
    return None


def read_files(batch: Sequence[Path], limits: ReadLimits, stop: Event) -> list[Extracted | SourceError | None]:
    """Read several files one after the other. Ends early on ``stop``.

    Returns:
        For each its text; why it cannot be read; or None where a parser is needed, see ``parse_file``.
    """
    found: list[Extracted | SourceError | None] = []
    for file in batch:
        if stop.is_set():
            break
        media_type = media_type_of(file.name)
        try:
            with _told_of(file):
                data = b"" if is_parsed(media_type) else _content(file, limits)
                parsed = is_parsed(media_type, data)
                found.append(None if parsed else _dated(extract(data, media_type, file.name, limits), file))
        except SourceError as error:
            found.append(error)
    return found


async def parse_file(file: Path, limits: ReadLimits, parsers: Parsers) -> Extracted | SourceError:
    """Read one file whose format takes a parser; what cannot be read yields its error."""
    try:
        with _told_of(file):
            async with parsers.slot():
                data = await asyncio.to_thread(_content, file, limits)
                return _dated(await parsers.extract(data, media_type_of(file.name), file.name), file)
    except SourceError as error:
        return error


def _dated(found: Extracted, file: Path) -> Extracted:
    """With the day on which the file was last changed, where its content does not tell one."""
    if found.date is not None:
        return found
    try:
        changed = datetime.fromtimestamp(file.stat().st_mtime, UTC).date()
    except (ValueError, OverflowError):
        # A file system may hold times that no calendar has.
        return found
    return replace(found, date=SourceDate(changed, "file"))


@contextmanager
def _told_of(file: Path) -> Generator[None, None, None]:
    """Errors as SourceErrors that begin with the path."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{printable(str(file))} {error}") from error
    except OSError as error:
        raise SourceError(f"{printable(str(file))} cannot be read: {error.strerror or error}") from error


async def in_thread(work: Callable[[Event], T]) -> T:
    """Run blocking work in a thread; when the caller is cancelled, the work is told to stop."""
    stop = Event()
    try:
        return await asyncio.to_thread(work, stop)
    except asyncio.CancelledError:
        stop.set()
        raise


def _content(path: Path, limits: ReadLimits) -> bytes:
    """All of a file, bounded also where it holds more than its size tells."""
    size = path.stat().st_size
    if size > limits.max_file_bytes:
        raise _too_large(size, limits)
    if not path.is_file():
        raise SourceError("is not a regular file")
    with path.open("rb") as file:
        data = file.read(size + 1)
        if len(data) > size:
            data += file.read(limits.max_file_bytes + 1 - len(data))
    if len(data) > limits.max_file_bytes:
        raise _too_large(len(data), limits)
    return data


def _too_large(size: int, limits: ReadLimits) -> SourceError:
    return SourceError(
        f"is {size / MEGABYTE:,.0f} MB; the limit is {limits.max_file_bytes / MEGABYTE:,.0f} MB. "
        f"Raise it with --max-file-mb {size // MEGABYTE + 1}, or split the file."
    )
