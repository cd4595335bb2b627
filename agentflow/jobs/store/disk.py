"""The store on disk: a folder a job, a file for each content, named by its hash. Imports base."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agentflow.errors import JobStoreError

Value = TypeVar("Value")


class DiskStore:
    """Files below one folder, its owner's alone.

    Args:
        folder: which is made when something is first kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="agentflow-jobs-store")

    async def put(self, job: str, sha256: str, data: bytes) -> None:
        """Keep a file: written beside its place, synced, then renamed into it."""
        await self._run(self._put, job, sha256, data)

    async def get(self, job: str, sha256: str) -> bytes:
        """A file, checked against its hash."""
        data = await self._run((self._of(job) / sha256).read_bytes)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise JobStoreError(f"The file {sha256[:12]} of job '{job}' was changed. Restore it from a copy.")
        return data

    async def delete(self, job: str) -> None:
        """Remove the job's folder."""
        await self._run(self._delete, job)

    async def aclose(self) -> None:
        """End its threads."""
        await asyncio.to_thread(self._threads.shutdown)

    def _put(self, job: str, sha256: str, data: bytes) -> None:
        folder = self._of(job)
        if (folder / sha256).exists():
            return
        for each in (self._folder, folder.parent, folder):
            if not each.exists():
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
                # A folder whose name is not on the disk takes its files with it when the power goes.
                _sync(each.parent)
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix="unfinished-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, folder / sha256)
            _sync(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise

    def _delete(self, job: str) -> None:
        folder = self._of(job)
        if folder.exists():
            shutil.rmtree(folder)

    def _of(self, job: str) -> Path:
        """A job's folder. Ids are made here, but a path that leaves the store must be impossible all the same."""
        if not job or not all(c.isascii() and (c.isalnum() or c in "-_") for c in job):
            raise JobStoreError(f"'{job[:80]}' is no job's id.")
        return self._folder / job[:8] / job

    async def _run(self, work: Callable[..., Value], *arguments: object) -> Value:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except OSError as error:
            raise JobStoreError(
                f"The store {self._folder} cannot be used: {error.strerror or error}. Nothing is half written. "
                "Check the disk's space and the folder's rights."
            ) from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
