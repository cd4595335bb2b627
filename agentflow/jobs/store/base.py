"""The protocol of a store of files. Imports nothing of agentflow.

Files are known by the SHA-256 of their content, within their job: equal files of one job are kept once, and a job's
files go with it, whatever other jobs keep. Nothing one job stores can be found out through another.
"""

from __future__ import annotations

from typing import Protocol


class BlobStore(Protocol):
    """Keeps files. All of it is safe for many tasks and processes at once."""

    async def put(self, job: str, sha256: str, data: bytes) -> None:
        """Keep a file of a job. It is there whole or not at all; putting it again changes nothing.

        Raises:
            JobStoreError: it cannot be kept.
        """
        ...

    async def get(self, job: str, sha256: str) -> bytes:
        """A file, checked against its hash.

        Raises:
            JobStoreError: it is missing, was changed, or cannot be read.
        """
        ...

    async def delete(self, job: str) -> None:
        """Remove everything a job has kept. Nothing is left; a job that kept nothing is fine.

        Raises:
            JobStoreError: it cannot be removed, or not all of it.
        """
        ...

    async def aclose(self) -> None:
        """Let go. Closing twice changes nothing."""
        ...
