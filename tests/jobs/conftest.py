"""Fixtures of the jobs' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.places import Place, make_place
from tests.servers.counting import CountingServer


@pytest.fixture(scope="session")
def _counting_process() -> Iterator[CountingServer]:
    server = CountingServer()
    yield server
    server.stop()


@pytest.fixture
def counting(_counting_process: CountingServer) -> Iterator[CountingServer]:
    """A model server that counts its calls."""
    yield _counting_process
    _counting_process.settings(delay=0.0, fail=0)


@pytest.fixture
def place(tmp_path: Path, counting: CountingServer) -> Place:
    """Jobs in SQLite."""
    return make_place(tmp_path, counting.url, lease_s=2, retry_s=0)


@pytest.fixture
def postgres_place(
    tmp_path: Path, counting: CountingServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """Jobs in PostgreSQL."""
    monkeypatch.setenv("TEST_URL", postgres_url)
    return make_place(tmp_path, counting.url, postgres_url, lease_s=2, retry_s=0)


@pytest.fixture(params=["sqlite", "postgres"])
def any_place(request: pytest.FixtureRequest) -> Place:
    """Jobs in each of the two."""
    place: Place = request.getfixturevalue("place" if request.param == "sqlite" else "postgres_place")
    return place
