"""A user's story: the server in one process, workers in others, curl as the client, a webhook at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.servers.api import Api, Background, key, run, toml
from tests.servers.openai_server import ScriptedServer, ServerProcess

TIDES = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest on Earth.\n"
QUESTION = "How high does the tide rise in the Bay of Fundy?"


@pytest.fixture
def receiver() -> Iterator[str]:
    process = ServerProcess("tests.servers.receiver")
    yield process.address
    process.stop()


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer."""
    ends = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.05)
    return found


@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_a_job_outlives_its_worker_and_its_answer_is_told(
    tmp_path: Path, scripted_server: ScriptedServer, receiver: str
) -> None:
    scripted_server.script({"*": [
        {"responder": "planning"}, {"gate": "slow", "responder": "quoting"}, {"responder": "quoting"},
    ]})  # fmt: skip
    (tmp_path / "agentflow.toml").write_text(
        toml(scripted_server, "[server]\nallow_private = true\n[jobs]\nlease_s = 1.0\n").replace(
            'rungs = ["code", "small", "large"]', 'rungs = ["small"]'
        )
    )
    token = key(tmp_path, "acme", "--day-usd", "5")
    secret = run(tmp_path, "webhooks", "secret", "--tenant", "acme").stdout.strip()
    api, first = Api(tmp_path), Background(tmp_path, "worker")
    started: list[Background] = [first]

    def curl(*arguments: str) -> Any:
        command = ["curl", "-sS", "--max-time", "60", "-H", f"Authorization: Bearer {token}", *arguments]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90, cwd=tmp_path).stdout
        return json.loads(said) if said.startswith(("{", "[")) else said

    try:
        (tmp_path / "tides.md").write_text(TIDES)
        collection = curl(f"{api.url}/v1/collections", "--json", '{"name": "tides"}')["id"]
        curl(f"{api.url}/v1/collections/{collection}/files", "-F", "file=@tides.md")
        asked = {"query": QUESTION, "sources": {"collections": [collection]}, "webhook": {"url": f"{receiver}/hook"},
                 "budget": {"usd": "1"}}  # fmt: skip
        job = curl(f"{api.url}/v1/research", "--json", json.dumps(asked), "-H", "Idempotency-Key: story")
        assert job["status"] == "queued"

        # The first worker has planned, and is in the middle of the answer when it dies.
        until(lambda: len(scripted_server.requests()) == 2)
        first.kill()
        started.append(Background(tmp_path, "worker"))

        stream = curl("-N", f"{api.url}{job['urls']['events']}")
        numbers = [int(line[4:]) for line in stream.splitlines() if line.startswith("id: ")]
        assert numbers == list(range(1, len(numbers) + 1)) and '"recovering"' in stream
        result = curl(f"{api.url}{job['urls']['result']}?wait=60")
        assert result["status"] == "completed" and not result["partial"]
        (claim,) = result["output"]["claims"]
        (source,) = curl(f"{api.url}{job['urls']['sources']}")
        text = curl(f"{api.url}{source['text']}")
        (citation,) = claim["citations"]
        assert text[citation["start"] : citation["end"]] == citation["quote"] in TIDES
        assert len(scripted_server.requests()) == 3, "the plan was paid for once; only the answer was asked for again"

        spend = curl(f"{api.url}{job['urls']['spend']}")["spend"]
        assert 0 < float(spend["usd"]) <= 1 and spend["in_doubt"] == 1, "what the dead worker asked is charged too"
        assert "# " in curl(f"{api.url}{job['urls']['report_md']}")
        (message,) = until(lambda: httpx.get(f"{receiver}/heard").json())
        told = Webhook(secret).verify(message["body"], message["headers"])
        assert told["type"] == "research.completed" and told["data"]["id"] == job["id"]
        again = curl(f"{api.url}/v1/research", "--json", json.dumps(asked), "-H", "Idempotency-Key: story")
        assert again["id"] == job["id"]
    finally:
        scripted_server.release("slow")
        for worker in started:
            worker.kill()
        code, said = api.stop()
    assert code == 0 and "Traceback" not in said, said
    assert "0 differences" in run(tmp_path, "budget", "verify").stdout
