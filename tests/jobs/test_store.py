"""Every store of files, on the same tests: a folder, and a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentflow.errors import JobStoreError
from agentflow.jobs.store.base import BlobStore
from agentflow.jobs.store.disk import DiskStore
from agentflow.jobs.store.s3 import S3Store
from tests.servers.openai_server import ServerProcess

JOB = "20261121-101010-0123456789abcdef"
BUCKET = "agentflow-test"


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    process = ServerProcess("tests.servers.objects")
    yield process.address
    process.stop()


@pytest.fixture(params=["disk", "s3", "s3 with versions"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[BlobStore]:
    if request.param == "disk":
        it: BlobStore = DiskStore(tmp_path / "store")
    else:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = f"{BUCKET}-{request.param.replace(' ', '-')}"
        it = S3Store(bucket, f"{tmp_path.name}/", request.getfixturevalue("s3"))
        it._client.create_bucket(Bucket=bucket)
        if "versions" in request.param:
            it._client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    yield it
    await it.aclose()


async def put(store: BlobStore, job: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    await store.put(job, digest, data)
    return digest


async def test_a_file_comes_back_as_it_was(store: BlobStore) -> None:
    for data in (b"", b"a", bytes(range(256)) * 4096):
        assert await store.get(JOB, await put(store, JOB, data)) == data


async def test_putting_a_file_again_changes_nothing(store: BlobStore) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(put(store, JOB, b"the same")) for _ in range(8)]
    assert len({task.result() for task in tasks}) == 1
    assert await store.get(JOB, tasks[0].result()) == b"the same"


async def test_what_is_deleted_is_gone_and_other_jobs_files_stay(store: BlobStore) -> None:
    other = JOB[:-1] + "0"
    digests = [await put(store, JOB, str(number).encode()) for number in range(5)]
    await put(store, JOB, b"0")
    kept = await put(store, other, b"0")
    await store.delete(JOB)
    for digest in digests:
        with pytest.raises(JobStoreError):
            await store.get(JOB, digest)
    assert await store.get(other, kept) == b"0"
    await store.delete(JOB)
    if isinstance(store, S3Store):
        versions = store._client.list_object_versions(Bucket=store._bucket, Prefix=f"{store._prefix}{JOB}/")
        assert "Versions" not in versions and "DeleteMarkers" not in versions


async def test_a_file_that_was_changed_is_told(store: BlobStore) -> None:
    digest = await put(store, JOB, b"true")
    if isinstance(store, S3Store):
        store._client.put_object(Bucket=store._bucket, Key=store._key(JOB, digest), Body=b"false")
    else:
        (path,) = (p for p in Path(getattr(store, "_folder")).rglob(digest))  # noqa: B009
        path.write_bytes(b"false")
    with pytest.raises(JobStoreError, match="was changed"):
        await store.get(JOB, digest)


async def test_a_missing_file_is_told(store: BlobStore) -> None:
    with pytest.raises(JobStoreError, match="cannot be used"):
        await store.get(JOB, "0" * 64)


@pytest.mark.parametrize("job", ["", "..", "../x", "/etc", "a/b", "a\x00b", "über"])
async def test_no_name_of_a_job_leaves_the_folder(tmp_path: Path, job: str) -> None:
    store = DiskStore(tmp_path / "store")
    with pytest.raises(JobStoreError, match="is no job's id"):
        await put(store, job, b"x")
    assert list(tmp_path.iterdir()) == []
    await store.aclose()


async def test_a_server_that_is_away_is_told_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECRETSECRET")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tiptoe-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = S3Store("nowhere", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(JobStoreError, match="bucket 'nowhere' cannot be used") as told:
        await put(store, JOB, b"x")
    assert "ecret" not in str(told.value)
    await store.aclose()


async def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "store")
    await put(store, JOB, b"x")
    for path in (tmp_path / "store").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    await store.aclose()
