"""What the server's own trouble is to its clients: an answer that says when to come back, and nothing of its inside."""

from __future__ import annotations

import resource
import socket
import sqlite3
from collections.abc import Iterator

import pytest

from agentflow.server.serving import _listen
from tests.servers.api import Api, toml
from tests.servers.openai_server import ScriptedServer

ROOM = 1_500_000


@pytest.fixture(scope="module")
def api(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server none of whose files may be larger than its room, as on a disk that is full."""
    folder = tmp_path_factory.mktemp("trouble")
    (folder / "agentflow.toml").write_text(toml(models))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        server = Api(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    yield server
    server.kill()


@pytest.mark.parametrize("size", [ROOM // 2, ROOM + 10_000, 2 * ROOM])
def test_an_upload_without_room_is_refused_for_now_and_leaves_nothing(api: Api, size: int) -> None:
    with api.client() as http:
        made = http.post("/v1/collections", json={"name": "c"}).json()["id"]
        reply = http.post(f"/v1/collections/{made}/files", files={"file": ("a.txt", b"Tides rise. " * (size // 12))})
        if size < ROOM:
            assert reply.status_code == 201, reply.text
            return
        assert reply.status_code == 503 and reply.json()["retryable"], reply.text
        assert reply.headers["retry-after"] == "60" and str(api.folder) not in reply.text
        assert http.get(f"/v1/collections/{made}").json()["files"] == []
    assert list((api.folder / ".agentflow" / "collections").rglob(".*")) == []


def test_a_database_that_is_broken_is_told_without_its_words(api: Api) -> None:
    with api.client() as http:
        assert http.get("/v1/research").status_code == 200
        database = sqlite3.connect(api.folder / ".agentflow" / "jobs.db")
        database.execute("alter table agentflow_job rename to elsewhere")
        for path in ("/v1/research", "/v1/research/x", "/v1/research/x/events", "/readyz"):
            reply = http.get(path)
            assert reply.status_code == 503, reply.text
            assert "agentflow_job" not in reply.text and str(api.folder) not in reply.text, reply.text
        assert http.get("/v1/research").headers["retry-after"] == "5"
        batch = {"requests": [{"query": "Why?", "sources": {"urls": ["https://example.org/"]}}] * 2}
        refused = http.post("/v1/research/batch", json=batch)
        assert [item["problem"]["status"] for item in refused.json()["data"]] == [503, 503]
        assert "agentflow_job" not in refused.text
        database.execute("alter table elsewhere rename to agentflow_job")
        database.close()
        assert http.get("/v1/research").status_code == 200, "and it goes on"


def test_answers_leave_at_once() -> None:
    """Without this the body of every answer waits 40 ms for its head to be acknowledged."""
    with _listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
