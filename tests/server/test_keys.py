"""Keys: shown once, kept as hashes, bounded in what they do, how often, and at whose cost."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agentflow.jobs.annex import Annex
from agentflow.jobs.database import Database
from agentflow.jobs.tenants import Tenants
from agentflow.server.keys import Keys
from agentflow.server.pace import OwnPace
from agentflow.server.tables import metadata
from tests.servers.api import Api, key, keys, run, toml
from tests.servers.openai_server import ScriptedServer

ASK: Any = [{"role": "user", "content": "Which ticket is urgent?"}]


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, str]:
    made = {"acme": key(folder, "acme", "--day-tokens", "2500", "--month-usd", "1")}
    asyncio.run(_more(folder / ".agentflow" / "jobs.db", made))
    return made


async def _more(path: Path, made: dict[str, str]) -> None:
    """The other keys, without a process for each."""
    annex, tenants = Annex(Database(path), metadata), Tenants(Database(path))
    keys = Keys(annex)
    _, made["rival"] = await keys.create("rival", "rival", ["submit", "read"])
    _, made["looker"] = await keys.create("looker", "acme", ["read"])
    _, made["slow"] = await keys.create("slow", "slow", ["submit", "read"], requests_per_minute=2)
    _, made["admin"] = await keys.create("boss", "boss", ["admin"])
    _, made["leaver"] = await keys.create("leaver", "leaver", ["read"], expires_ms=2**42)
    for name in ("rival", "slow", "boss", "leaver"):
        await tenants.keep(name, None)
    await annex.aclose()
    await tenants.aclose()


@pytest.fixture(scope="module")
def api(folder: Path, tokens: dict[str, str]) -> Iterator[Api]:
    server = Api(folder)
    yield server
    server.kill()


@pytest.fixture
def submit(api: Api, tokens: dict[str, str], folder: Path) -> Any:
    def submit(name: str) -> httpx.Response:
        with api.client(tokens[name]) as http:
            made = http.post("/v1/collections", json={"name": "c"}).json()["id"]
            http.post(f"/v1/collections/{made}/files", files={"file": ("a.md", "Tides rise.")}).raise_for_status()
            later = "2099-01-01T00:00:00Z"
            asked = {"query": "Why?", "sources": {"collections": [made]}, "deferrable_until": later}
            return http.post("/v1/research", json=asked)

    return submit


def test_a_key_is_kept_as_its_hash_alone(folder: Path, tokens: dict[str, str]) -> None:
    token = tokens["acme"]
    assert token.startswith("af_") and len(token) == 63
    listed = keys(folder)
    assert {"acme", "rival", "looker", "slow", "boss", "leaver"} == {one["name"] for one in listed}
    secret = token.rsplit("_", 1)[1] if "_" not in token[20:] else token[20:]
    files = [path for path in (folder / ".agentflow").glob("jobs.db*")]
    assert files and not any(secret.encode() in path.read_bytes() for path in files)
    with sqlite3.connect(folder / ".agentflow" / "jobs.db") as database:
        digests = [row[0] for row in database.execute("select digest from agentflow_key")]
    database.close()
    assert all(len(digest) == 64 for digest in digests)


@pytest.mark.parametrize("token", [None, "x", "af_0000000000000000_" + "A" * 43, "af_'; drop table agentflow_key;--"])
def test_without_a_good_key_nothing_is_done(api: Api, tokens: dict[str, str], token: str | None) -> None:
    with api.client(token) as http:
        for method, path in [("GET", "/v1/models"), ("GET", "/v1/research"), ("POST", "/v1/chat/completions")]:
            reply = http.request(method, path)
            assert reply.status_code == 401 and reply.headers["www-authenticate"].startswith("Bearer")
        assert http.get("/healthz").status_code == 200


def test_a_wrong_secret_of_a_known_key_is_no_key(api: Api, tokens: dict[str, str]) -> None:
    with api.client(tokens["acme"][:-1] + ("A" if tokens["acme"][-1] != "A" else "B")) as http:
        assert http.get("/v1/models").status_code == 401


def test_scopes_bound_what_a_key_does(api: Api, tokens: dict[str, str]) -> None:
    with api.client(tokens["looker"]) as http:
        assert http.get("/v1/models").status_code == 200
        refused = http.post("/v1/chat/completions", json={"model": "small", "messages": ASK})
        assert refused.status_code == 403 and "'submit'" in refused.json()["detail"]
        assert http.get("/metrics").status_code == 403
    with api.client(tokens["admin"]) as http:
        page = http.get("/metrics")
        assert page.status_code == 200 and "agentflow_http_requests_total" in page.text
        assert "acme" not in page.text and "rival" not in page.text


def test_who_may_not_is_told_before_a_body_is_read(api: Api, tokens: dict[str, str]) -> None:
    host, port = api.url.removeprefix("http://").rsplit(":", 1)
    for token, status in [("af_nobody", b"401"), (tokens["looker"], b"403")]:
        for path in ("/v1/collections/col_0/files", "/v1/research", "/v1/chat/completions"):
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 900000\r\n"
            with socket.create_connection((host, int(port)), timeout=5) as line:
                line.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + b"{")
                assert line.recv(4_096).split(b" ")[1] == status, path


def test_a_key_that_asks_too_often_is_told_when_to_come_back(api: Api, tokens: dict[str, str]) -> None:
    with api.client(tokens["slow"]) as http:
        replies = [http.get("/v1/models") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 30 and replies[-1].json()["retryable"]


def test_a_tenants_day_holds_over_its_keys_and_requests(
    api: Api, models: ScriptedServer, tokens: dict[str, str], folder: Path
) -> None:
    models.script({"*": [{"text": "x", "usage": {"prompt_tokens": 400, "completion_tokens": 100}}]})
    before = len(models.requests())
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=tokens["acme"], max_retries=0) as client:
        served = 0
        with pytest.raises(openai.APIStatusError) as caught:
            for _ in range(20):
                client.chat.completions.create(model="small", messages=ASK, max_tokens=300)
                served += 1
    assert caught.value.status_code == 402 and "acme@" in str(caught.value)
    assert int(caught.value.response.headers["retry-after"]) <= 86_400, "until its day is over"
    assert 0 < served == len(models.requests()) - before and served * 500 <= 2_500
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=tokens["rival"], max_retries=0) as client:
        client.chat.completions.create(model="small", messages=ASK)
    report = run(folder, "budget", "report", "--by", "tenant", "--format", "csv").stdout
    assert "acme" in report and "rival" in report


def test_another_tenants_job_and_none_at_all_look_the_same(api: Api, tokens: dict[str, str], submit: Any) -> None:
    mine = submit("acme").json()["id"]
    assert submit("rival").status_code == 202
    absent = mine[:-6] + ("000000" if mine[-6:] != "000000" else "111111")
    tails = ("", "/result", "/events", "/sources", "/sources/s1", "/claims", "/spend", "/report.md", "/report.html")
    paths = [("GET", "/v1/research/{}" + tail) for tail in tails]
    paths += [("POST", "/v1/research/{}/" + verb) for verb in ("cancel", "stop", "resume", "approve")]
    paths += [("DELETE", "/v1/research/{}")]
    with api.client(tokens["rival"]) as http:
        for method, path in paths:
            foreign, none = (http.request(method, path.format(id)) for id in (mine, absent))
            assert foreign.status_code == none.status_code == 404, path
            assert foreign.text.replace(mine, "ID") == none.text.replace(absent, "ID")
        follow = {"query": "And?", "sources": {"urls": ["https://example.org"]}, "previous_id": mine}
        assert http.post("/v1/research", json=follow).status_code == 404
        assert [job["id"] for job in http.get("/v1/research").json()["data"]].count(mine) == 0
    with api.client(tokens["looker"]) as http:
        assert http.get(f"/v1/research/{mine}").status_code == 200, "another key of the same tenant"


def test_collections_and_idempotency_keys_are_a_tenants_own(api: Api, tokens: dict[str, str]) -> None:
    with api.client(tokens["acme"]) as http:
        mine = http.post("/v1/collections", json={"name": "mine"}).json()["id"]
    with api.client(tokens["rival"]) as http:
        for method, path in [("GET", ""), ("DELETE", ""), ("DELETE", "/files/a.md")]:
            assert http.request(method, f"/v1/collections/{mine}{path}").status_code == 404
        upload = http.post(f"/v1/collections/{mine}/files", files={"file": ("a.md", "x")})
        assert upload.status_code == 404
        assert mine not in http.get("/v1/collections").text
        asked = {"query": "Why?", "sources": {"collections": [mine]}}
        assert http.post("/v1/research", json=asked).status_code == 404


def test_a_revoked_key_opens_nothing_and_does_not_open_the_server(
    folder: Path, api: Api, tokens: dict[str, str]
) -> None:
    with api.client(tokens["leaver"]) as http:
        assert http.get("/v1/models").status_code == 200
        (id,) = [one["id"] for one in keys(folder) if one["name"] == "leaver"]
        assert "Revoked" in run(folder, "keys", "revoke", id).stdout
        assert any(http.get("/v1/models").status_code == 401 for _ in range(4_000)), "within two seconds"
    assert [one["state"] for one in keys(folder) if one["name"] == "leaver"] == ["revoked"]


@pytest.mark.timeout(90)
def test_a_stream_ends_with_its_key(models: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "agentflow.toml").write_text(toml(models, "[server]\nheartbeat_s = 0.5\n"))
    token = key(tmp_path, "leaver")
    api = Api(tmp_path)
    try:
        with api.client(token) as http:
            made = http.post("/v1/collections", json={"name": "c"}).json()["id"]
            http.post(f"/v1/collections/{made}/files", files={"file": ("a.md", "Tides rise.")}).raise_for_status()
            asked = {"query": "Why?", "sources": {"collections": [made]}, "deferrable_until": "2099-01-01T00:00:00Z"}
            job = http.post("/v1/research", json=asked).json()
            with http.stream("GET", job["urls"]["events"]) as stream:
                lines = stream.iter_lines()
                assert next(lines) == "retry: 1000"
                run(tmp_path, "keys", "revoke", keys(tmp_path)[0]["id"])
                assert "event: error" in [line for line in lines if line.startswith("event")][-1]
    finally:
        api.kill()


def test_commands_refuse_what_cannot_be(folder: Path, tmp_path: Path) -> None:
    for wrong in (["keys", "create", "a b"], ["keys", "create", "x", "--day-usd", "-1"], ["keys", "revoke", "nope"],
                  ["serve", "--host", "::", "--port", "0"], ["serve", "--host", "0.0.0.0", "--port", "0"]):  # fmt: skip
        refused = run(tmp_path, *wrong, check=False)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert "agentflow keys create" in refused.stderr
    assert "next start" in run(tmp_path, "keys", "create", "acme", "--day-usd", "5").stderr
    assert "next start" not in run(tmp_path, "keys", "create", "other").stderr


def test_a_minutes_requests_may_come_at_once_and_flow_back_evenly() -> None:
    now = [0.0]
    pace = OwnPace(clock=lambda: now[0])
    assert [pace.count("a", 3) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(20.0)]
    assert pace.count("b", 3) == 0.0
    now[0] = 20.0
    assert [pace.count("a", 3), pace.count("a", 3)] == [0.0, pytest.approx(20.0)]


def test_anothers_job_is_followed_no_more_than_an_unknown_one(
    submit: Any, api: Api, tokens: dict[str, str], folder: Path
) -> None:
    theirs, unknown = submit("acme").json()["id"], "20260101-000000-0000000000000000"
    with api.client(tokens["rival"]) as rival:
        for path in ("/v1/research", "/v1/research:estimate"):
            answers = [rival.post(path, json={"query": "And why?", "previous_id": id}) for id in (theirs, unknown)]
            assert [answer.status_code for answer in answers] == [404, 404]
            one, two = (answer.text.replace(theirs, "ID").replace(unknown, "ID") for answer in answers)
            assert one == two
    with api.client(tokens["acme"]) as acme:
        assert acme.post("/v1/research", json={"query": "And why?", "previous_id": theirs}).status_code == 409
