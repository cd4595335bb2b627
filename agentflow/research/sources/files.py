"""Files and folders: what is there, in a fixed order, and its bytes. Imports extract, source, errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agentflow.errors import SourceError
from agentflow.research.sources.extract import extract, media_type_of
from agentflow.research.sources.source import MEGABYTE, Extracted, ReadLimits

_PASSED_OVER = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})


def walk(folder: Path, limits: ReadLimits) -> Iterator[Path]:
    """Every file below a folder, in sorted order.

    Hidden entries, caches and virtual environments are passed over. Links are followed as long as they lead to
    something inside the folder that was not visited before, so a loop ends.

    Raises:
        SourceError: more files than the limit.
    """
    inside = folder.resolve()
    count = 0
    for path in _walk(folder, inside, set()):
        count += 1
        if count > limits.max_files:
            raise SourceError(f"{folder} holds more than {limits.max_files:,} files. Name fewer, or raise --max-files.")
        yield path


def _walk(folder: Path, inside: Path, seen: set[Path]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _PASSED_OVER or entry.name.endswith(".egg-info"):
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            try:
                real = path.resolve(strict=True)
            except (OSError, RuntimeError):
                continue
            if not real.is_relative_to(inside) or real in seen or path.is_relative_to(real):
                continue
            seen.add(real)
        if entry.is_dir():
            yield from _walk(path, inside, seen)
        elif entry.is_file():
            yield path


def read_file(path: Path, limits: ReadLimits) -> Extracted:
    """Read one file and get its text out.

    Raises:
        SourceError: it cannot be read; the message begins with the path.
    """
    try:
        size = path.stat().st_size
        if size > limits.max_file_bytes:
            raise SourceError(
                f"is {size / MEGABYTE:,.0f} MB; the limit is {limits.max_file_bytes / MEGABYTE:,.0f} MB. "
                f"Raise it with --max-file-mb {size // MEGABYTE + 1}, or split the file."
            )
        if not path.is_file():
            raise SourceError("is not a regular file")
        return extract(path.read_bytes(), media_type_of(path.name), path.name, limits)
    except SourceError as error:
        raise SourceError(f"{path} {error}") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
