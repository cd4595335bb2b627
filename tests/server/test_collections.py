"""Collections over HTTP: reused by many jobs, paid for by whoever uploads, gone when they are deleted."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.servers.api import Api, Background, key, run
from tests.servers.openai_server import ScriptedServer

TIDES = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest on Earth.\n"
CAKES = "A cake is made of butter, eggs, sugar and flour, and baked for forty minutes.\n"
QUESTION = "How high does the tide rise in the Bay of Fundy?"


@pytest.fixture(scope="module")
def tokens(folder: Path, api: Api) -> dict[str, str]:
    return {"acme": key(folder, "acme"), "poor": key(folder, "poor", "--day-joules", "0.001")}


def collection(http: httpx.Client, name: str, text: str) -> str:
    made = http.post("/v1/collections", json={"name": name}).json()["id"]
    http.post(f"/v1/collections/{made}/files", files={"file": (f"{name}.md", text)}).raise_for_status()
    return made


def kept(folder: Path) -> list[Path]:
    """Files of uploads in the store of jobs."""
    return [path for path in (folder / ".agentflow" / "store").rglob("upload_*/*") if path.is_file()]


def test_jobs_look_in_collections_by_their_ids(
    api: Api, models: ScriptedServer, folder: Path, tokens: dict[str, str], worker: Background
) -> None:
    models.script({"*": [{"status": 400}]})
    with api.client(tokens["acme"]) as http:
        tides, cakes = collection(http, "tides", TIDES), collection(http, "cakes", CAKES)
        asked = {"query": QUESTION, "sources": {"collections": [cakes, tides, tides]}}
        id = http.post("/v1/research", json=asked).json()["id"]
        found = http.get(f"/v1/research/{id}/result", params={"wait": 30}).json()
        assert found["status"] == "completed" and "sixteen metres" in found["output"]["claims"][0]["text"]
        sources = http.get(f"/v1/research/{id}/sources").json()
        assert [source["origin"] for source in sources] == [f"{cakes}/cakes.md", f"{tides}/tides.md"]
        assert str(folder) not in http.get(f"/v1/research/{id}/report.md").text, "where files lie is nobody's business"

        again = run(
            folder, "jobs", "--server", api.url, "--key", tokens["acme"], "submit", QUESTION, "--collection", tides
        )
        id = again.stdout.split()[0]
        for each in (tides, cakes):
            assert http.delete(f"/v1/collections/{each}").status_code == 204
        assert kept(folder) == []
        # Whether that job began before or after, it ends, and says so.
        found = http.get(f"/v1/research/{id}/result", params={"wait": 30})
        assert found.status_code == 200 or "no collection" in found.json()["detail"], found.text
        assert http.post("/v1/research", json=asked).status_code == 404


def test_whoever_uploads_pays_for_reading(api: Api, folder: Path, tokens: dict[str, str]) -> None:
    with api.client(tokens["poor"]) as http:
        made = http.post("/v1/collections", json={"name": "tides"}).json()["id"]
        refused = http.post(f"/v1/collections/{made}/files", files={"file": ("tides.md", TIDES)})
        assert refused.status_code == 402 and refused.json()["type"].endswith("budget-exceeded")
        assert http.get(f"/v1/collections/{made}").json()["files"] == [] and kept(folder) == []
    with api.client(tokens["acme"]) as http:
        made = collection(http, "tides", TIDES)
        assert len(kept(folder)) == 2, "the file and its index"
        assert http.delete(f"/v1/collections/{made}/files/tides.md").status_code == 204
        assert kept(folder) == []
    report = run(folder, "budget", "report", "--by", "tenant").stdout
    assert "acme" in report
