"""The store on any S3-compatible server. The only file that imports boto3, when one is opened. Imports base.

A file is the object ``<prefix><job>/<sha256>``. Keys and the region come from where boto3 looks for them: the AWS_*
variables, its files, the machine's role.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from agentflow.errors import ConfigError, JobStoreError

Value = TypeVar("Value")


class S3Store:
    """Files in a bucket, which must exist.

    Args:
        bucket: its name.
        prefix: what every key begins with.
        endpoint_url: of the server; Amazon's when None.

    Raises:
        ConfigError: boto3 is not installed.
    """

    def __init__(self, bucket: str, prefix: str = "agentflow/", endpoint_url: str | None = None) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise ConfigError("jobs.store.kind: 's3' needs boto3. Install it: pip install 'agentflow[s3]'.") from error
        self._errors = (BotoCoreError, ClientError)
        self._bucket = bucket
        self._prefix = prefix
        retries = Config(retries={"mode": "standard", "max_attempts": 4}, connect_timeout=5, read_timeout=30)
        self._client: Any = boto3.client("s3", endpoint_url=endpoint_url, config=retries)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="agentflow-jobs-store")

    async def put(self, job: str, sha256: str, data: bytes) -> None:
        """Keep a file; the server checks what it received against its hash."""
        checksum = hashlib.sha256(data).digest()
        await self._run(
            lambda: self._client.put_object(
                Bucket=self._bucket, Key=self._key(job, sha256), Body=data, ChecksumSHA256=b64encode(checksum).decode()
            )
        )

    async def get(self, job: str, sha256: str) -> bytes:
        """A file, checked against its hash."""

        def read() -> bytes:
            body = self._client.get_object(Bucket=self._bucket, Key=self._key(job, sha256))["Body"]
            try:
                return bytes(body.read())
            finally:
                body.close()

        data = await self._run(read)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise JobStoreError(f"The file {sha256[:12]} of job '{job}' was changed. Restore it from a copy.")
        return data

    async def delete(self, job: str) -> None:
        """Remove every object of the job, and every version of it where the bucket keeps versions."""
        await self._run(lambda: self._delete(f"{self._prefix}{job}/"))

    async def aclose(self) -> None:
        """End its threads and connections."""
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    def _delete(self, prefix: str) -> None:
        for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix):
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
            if objects:
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
                if answer.get("Errors"):
                    raise JobStoreError(f"{len(answer['Errors'])} files could not be deleted. Delete the job again.")

    def _key(self, job: str, sha256: str) -> str:
        return f"{self._prefix}{job}/{sha256}"

    async def _run(self, work: Callable[[], Value]) -> Value:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except self._errors as error:
            said = " ".join(str(error).split())
            raise JobStoreError(
                f"The store in bucket '{self._bucket}' cannot be used: {said}. Nothing is half written. "
                "Check the address, the keys, and that the bucket exists."
            ) from error
