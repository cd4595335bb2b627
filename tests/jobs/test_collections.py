"""Collections: uploaded files and their indexes in the store, for workers anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import EntryFilter
from agentflow.budget.meter import Meter
from agentflow.config import JobStoreSettings, Settings
from agentflow.errors import BudgetExceeded, SourceError, UnknownJob, UsageError
from agentflow.jobs.collections.catalogue import Catalogue
from agentflow.jobs.collections.reader import edition
from agentflow.jobs.collections.shelf import Shelves
from agentflow.jobs.collections.tables import upload
from agentflow.jobs.collections.uploads import Uploads
from agentflow.jobs.job import JobSources, JobSpec, JobState
from agentflow.jobs.opening import open_database, open_store
from agentflow.jobs.research import research_kind
from agentflow.jobs.store.base import BlobStore
from agentflow.jobs.store.disk import DiskStore
from agentflow.runtime import Runtime
from tests.jobs.places import Place, at_work, until
from tests.servers.openai_server import ServerProcess

TIDES = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest on Earth.\n"
CAKES = "A cake is made of butter, eggs, sugar and flour, and baked for forty minutes.\n"
QUESTION = "How high does the tide rise in the Bay of Fundy?"


@dataclass
class House:
    """What a server and a worker have of one place."""

    settings: Settings
    catalogue: Catalogue
    store: BlobStore
    uploads: Uploads
    runtime: Runtime
    pays: Meter

    async def add(self, id: str, name: str, text: str) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield text.encode()

        await self.uploads.add(id, "", name, pieces(), self.pays)

    def shelves(self, store: BlobStore | None = None, chunk_chars: int | None = None) -> Shelves:
        size = chunk_chars or self.settings.research.chunk_chars
        made_with = edition(self.settings) if chunk_chars is None else f"another {size}"
        return Shelves(self.catalogue, store or self.store, made_with, size)

    async def rows(self) -> list[Any]:
        await self.catalogue.list("")
        return await self.catalogue._annex.read(lambda c: list(c.execute(sa.select(upload)).all()))


async def house_of(settings: Settings) -> House:
    runtime, catalogue = Runtime(settings), Catalogue(open_database(settings.jobs))
    store = open_store(settings.jobs.store)
    uploads = Uploads(catalogue, store, runtime, settings.server)
    return House(settings, catalogue, store, uploads, runtime, Meter("local", kind="tenant"))


@pytest.fixture
async def house(any_place: Place) -> AsyncIterator[House]:
    house = await house_of(any_place.settings)
    yield house
    await house.catalogue.aclose()
    await house.store.aclose()
    await house.runtime.aclose()


def files(place: Place) -> list[Path]:
    return sorted(path for path in (place.folder / "store").rglob("*") if path.is_file())


async def answer(place: Place, shelves: Shelves, *collections: str, origins: tuple[str, ...] = ()) -> Any:
    """The report of a research job over these."""
    async with at_work(place, {"research": partial(research_kind, shelves=shelves)}) as (jobs, _):
        sources = JobSources(collections=collections, origins=origins)
        job = await jobs.submit(JobSpec(query=QUESTION, sources=sources))
        await until(jobs, job.id, JobState.COMPLETED, JobState.FAILED)
        read = [one.facts["origin"] for one in await jobs.sources(job.id)]
        return {**(await jobs.result(job.id)).output, "read": sorted(read)}  # pyright: ignore


async def test_a_job_looks_in_several_collections_and_files(any_place: Place, house: House, tmp_path: Path) -> None:
    tides, cakes = [(await house.catalogue.create("", name, 10)).id for name in ("tides", "cakes")]
    await house.add(tides, "tides.md", TIDES)
    await house.add(cakes, "cakes.md", CAKES)
    await house.add(cakes, "again.md", TIDES)
    (tmp_path / "moon.md").write_text("The moon pulls the water of the sea.\n")
    report = await answer(any_place, house.shelves(), cakes, tides, origins=(str(tmp_path / "moon.md"),))
    assert report["read"] == sorted([str(tmp_path / "moon.md"), f"{cakes}/again.md", f"{cakes}/cakes.md"])
    assert "sixteen metres" in report["claims"][0]["text"]
    assert [skipped["origin"] for skipped in report["skipped"]] == [f"{tides}/tides.md"]


async def test_a_job_loads_the_index_and_reads_no_file(any_place: Place, house: House) -> None:
    id = (await house.catalogue.create("", "tides", 10)).id
    await house.add(id, "tides.md", TIDES)
    for row in await house.rows():
        (original,) = [path for path in files(any_place) if path.name == row.sha256]
        original.unlink()
    report = await answer(any_place, house.shelves(), id)
    assert report["answered"]


@pytest.mark.parametrize("harm", ["damaged", "gone", "of another edition"])
async def test_an_index_that_cannot_be_used_is_made_anew(any_place: Place, house: House, harm: str) -> None:
    id = (await house.catalogue.create("", "tides", 10)).id
    await house.add(id, "tides.md", TIDES)
    (row,) = await house.rows()
    (index,) = [path for path in files(any_place) if path.name != row.sha256]
    if harm == "damaged":
        index.write_bytes(index.read_bytes()[:-100])
    elif harm == "gone":
        index.unlink()
    shelves = house.shelves(chunk_chars=300 if harm == "of another edition" else None)
    (before,) = (await shelves.open([id], "")).uploads
    report = await answer(any_place, shelves, id)
    assert report["answered"]
    (after,) = (await shelves.open([id], "")).uploads
    assert after.index is not None and (harm != "of another edition" or before.index is None)
    assert (await shelves.open([id], "")).unread_bytes == 0


async def test_a_file_that_tells_no_day_is_of_the_day_on_which_it_came(any_place: Place, house: House) -> None:
    id = (await house.catalogue.create("", "tides", 10)).id
    await house.add(id, "tides.md", TIDES)
    await house.add(id, "dated.md", f"---\ndate: 2015-03-04\n---\n{CAKES}")
    came = upload.update().where(upload.c.name == "tides.md").values(created_ms=1_577_880_000_000)
    await house.catalogue._annex.write(lambda c: c.execute(came))
    shelf = await house.shelves(chunk_chars=500).open([id], "")
    days = {one.source.origin.rsplit("/")[-1]: one.source.date for one in await shelf.load()}
    assert {name: str(day) for name, day in days.items()} == {
        "tides.md": "2020-01-01 (when the file was last changed)",
        "dated.md": "2015-03-04 (as the document says)",
    }
    again = await (await house.shelves(chunk_chars=500).open([id], "")).load()
    assert {one.source.date for one in again} == set(days.values()), "kept with its index"


async def test_what_is_deleted_is_gone(any_place: Place, house: House) -> None:
    id = (await house.catalogue.create("", "tides", 10)).id
    await house.add(id, "tides.md", TIDES)
    await house.add(id, "cakes.md", CAKES)
    assert len(files(any_place)) == 4
    await house.add(id, "cakes.md", CAKES + "More.")
    assert len(files(any_place)) == 4, "the replaced file and its index are gone"
    await house.uploads.remove(id, "", "cakes.md")
    assert len(files(any_place)) == 2
    shelf = await house.shelves().open([id], "")
    await house.uploads.delete(id, "")
    assert files(any_place) == [] and await house.rows() == []
    for call in (house.shelves().open([id], ""), house.uploads.delete(id, ""), house.uploads.remove(id, "", "a.md")):
        with pytest.raises(UnknownJob):
            await call
    # A job that began before finds nothing, and leaves nothing.
    with pytest.raises(Exception, match="cannot be used"):
        await shelf.load()
    assert files(any_place) == []


async def test_an_index_made_while_its_file_is_deleted_leaves_nothing(any_place: Place, house: House) -> None:
    id = (await house.catalogue.create("", "tides", 10)).id
    await house.add(id, "tides.md", TIDES)

    class Late(DiskStore):
        async def put(self, job: str, sha256: str, data: bytes) -> None:
            await house.uploads.delete(id, "")
            await super().put(job, sha256, data)

    late = Late(any_place.folder / "store")
    shelf = await house.shelves(late, chunk_chars=300).open([id], "")
    assert len(await shelf.load()) == 1
    assert files(any_place) == []
    await late.aclose()


async def test_a_file_that_cannot_be_read_leaves_nothing(any_place: Place, house: House) -> None:
    id = (await house.catalogue.create("", "tides", 10)).id
    with pytest.raises(SourceError, match=r"^broken\.pdf"):
        await house.add(id, "broken.pdf", "%PDF-1.4 nothing")
    with pytest.raises(UsageError, match="type"):
        await house.add(id, "run.exe", "x")
    with pytest.raises(UnknownJob):
        await house.add("col_0", "a.md", "x")
    with pytest.raises(UsageError, match="is empty"):
        await house.shelves().open([id], "")
    assert files(any_place) == [] and await house.rows() == []


async def test_an_upload_that_is_broken_off_leaves_nothing(any_place: Place, house: House) -> None:
    id = (await house.catalogue.create("", "tides", 10)).id
    put, begun = house.store.put, asyncio.Event()

    async def slow(job: str, sha256: str, data: bytes) -> None:
        await put(job, sha256, data)
        begun.set()
        await asyncio.Event().wait()

    house.store.put = slow  # pyright: ignore[reportAttributeAccessIssue]
    task = asyncio.create_task(house.add(id, "tides.md", TIDES))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert files(any_place) == [] and await house.rows() == []


async def test_whoever_uploads_pays_for_reading(any_place: Place, house: House) -> None:
    id = (await house.catalogue.create("", "tides", 10)).id
    await house.add(id, "tides.md", TIDES)
    (entry,) = await house.runtime.ledger.entries(EntryFilter())
    assert entry.labels.tenant == "local" and entry.spend is not None and entry.spend.energy.mean > 0
    assert house.pays.spent.calls == 1
    house.pays.set_limits(Budget(calls=1))
    with pytest.raises(BudgetExceeded):
        await house.add(id, "cakes.md", CAKES)
    assert len(files(any_place)) == 2


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    process = ServerProcess("tests.servers.objects")
    yield process.address
    process.stop()


async def test_a_worker_elsewhere_reads_from_s3(place: Place, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = JobStoreSettings(kind="s3", bucket="collections", endpoint_url=s3)
    jobs = place.settings.jobs.model_copy(update={"store": bucket})
    house = await house_of(place.settings.model_copy(update={"jobs": jobs}))
    store: Any = house.store
    store._client.create_bucket(Bucket="collections")
    try:
        id = (await house.catalogue.create("", "tides", 10)).id
        await house.add(id, "tides.md", TIDES)
        assert (await answer(place, house.shelves(), id))["answered"]
        await house.uploads.delete(id, "")
        assert "Contents" not in store._client.list_objects_v2(Bucket="collections")
    finally:
        await house.catalogue.aclose()
        await house.store.aclose()
        await house.runtime.aclose()
