"""Clients that mean harm, or are only slow, over bare sockets: they are answered briefly, and the others served."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.servers.api import Api, toml
from tests.servers.openai_server import ScriptedServer

READERS = 1_000


@pytest.fixture(scope="module")
def folder(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    more = "[server]\nheader_timeout_s = 1.0\nbody_timeout_s = 1.0\nmax_body_kb = 64\nheartbeat_s = 2.0\n"
    more += "max_image_mb = 0\n"
    (folder / "agentflow.toml").write_text(toml(models, more))
    return folder


@pytest.fixture
def line(api: Api) -> Iterator[socket.socket]:
    with _dial(api) as line:
        yield line


def _dial(api: Api) -> socket.socket:
    host, port = api.url.removeprefix("http://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)


def heard(line: socket.socket) -> bytes:
    """All that comes until the server hangs up, or has said enough."""
    said = b""
    try:
        while piece := line.recv(65_536):
            said += piece
    except OSError:
        pass
    return said


def status(api: Api, request: bytes) -> int:
    """The status of the answer to these bytes; 0 when the server hangs up without a word."""
    with _dial(api) as line:
        line.sendall(request)
        line.settimeout(5)
        said = line.recv(65_536)
    return int(said.split(b" ", 2)[1]) if said else 0


HEAD = b"Host: 127.0.0.1\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        CHAT + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        CHAT + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\n{}   ",
        CHAT + b"Content-Length: -1\r\n\r\n",
        CHAT + b"Content-Length: 1e1\r\n\r\n{}",
        CHAT + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        CHAT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        CHAT + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HEAD + b"X: a\nY: b\r\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HEAD + b"Authorization: a\r\nAuthorization: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HEAD + b"A: b\r\n" * 100 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HEAD + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /v1/%2e%2e/healthz HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /v1/../healthz HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET //healthz HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /v1/research/a%2fb HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /v1/research/a%00b HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /v1\\research HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET http://evil/healthz HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_no_honest_client_sends_is_refused(api: Api, request_: bytes) -> None:
    assert status(api, request_) in (0, 400, 404, 411, 413, 431, 501)


def test_a_second_request_hidden_in_a_first_is_never_answered(api: Api, line: socket.socket) -> None:
    line.sendall(CHAT + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED)
    said = heard(line)
    assert said.count(b"HTTP/1.1") == 1 and b'"ok"' not in said


def test_a_body_that_is_too_large_is_refused_before_it_is_read(api: Api) -> None:
    assert status(api, CHAT + b"Content-Length: 999999999\r\n\r\n{") == 413
    chunks = b"".join(b"4000\r\n" + b" " * 0x4000 + b"\r\n" for _ in range(8))
    assert status(api, CHAT + b"Transfer-Encoding: chunked\r\n\r\n" + chunks) == 413


def test_headers_and_bodies_that_trickle_are_cut_off(api: Api) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(_dial(api)) for _ in range(50)]
        for line in slow[:25]:
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ")
        for line in slow[25:]:
            line.sendall(CHAT + b"Content-Length: 100\r\n\r\n{")
        with api.client() as http:
            assert http.get("/healthz").status_code == 200, "others are served meanwhile"
        answers = [heard(line) for line in slow]
    assert all(answer == b"" for answer in answers[:25]), "no whole request, no answer"
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers[25:])


def test_a_body_of_single_bytes_is_cut_off_however_steady(api: Api, line: socket.socket) -> None:
    line.sendall(CHAT + b"Content-Length: 1000\r\n\r\n")
    line.settimeout(0.2)
    sent, said = 0, b""
    while not said and sent < 100:
        line.sendall(b" ")
        sent += 1
        try:
            said = line.recv(65_536)
        except TimeoutError:
            continue
    assert said.startswith(b"HTTP/1.1 408"), sent


def test_a_client_that_takes_nothing_is_cut_off(api: Api) -> None:
    host, port = api.url.removeprefix("http://").rsplit(":", 1)
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        lazy.connect((host, int(port)))
        lazy.sendall(b"GET /openapi.json HTTP/1.1\r\n" + HEAD + b"\r\n")
        lazy.settimeout(20)
        size = int(_head(lazy).split(b"content-length: ")[1].split(b"\r\n")[0])
        most = 40_000_000 // size
        lazy.settimeout(0.2)
        try:
            for _ in range(most):
                lazy.sendall(b"GET /openapi.json HTTP/1.1\r\n" + HEAD + b"\r\n")
        except TimeoutError:
            pass
        for _ in range(2):
            # Each is cut off after a second: more than a client has to take what it was sent.
            with _dial(api) as idle:
                assert heard(idle) == b""
        lazy.settimeout(20)
        assert len(heard(lazy)) < most * size / 2, "the server did not wait for it"


def _head(line: socket.socket) -> bytes:
    said = b""
    while b"\r\n\r\n" not in said:
        said += line.recv(256)
    return said


def test_connections_have_a_bound_and_the_next_is_told_to_come_back(models: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "agentflow.toml").write_text(toml(models, "[server]\nmax_connections = 20\n"))
    api = Api(tmp_path)
    try:
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(_dial(api))
            with api.client() as http:
                refused = http.get("/healthz")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/problem+json" and refused.json()["retryable"]
        assert refused.headers["x-content-type-options"] == "nosniff" and refused.headers["connection"] == "close"
        with api.client() as http:
            assert http.get("/healthz").status_code == 200
    finally:
        api.kill()


def test_as_many_files_may_be_open_as_connections_need(models: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "agentflow.toml").write_text(toml(models))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        api = Api(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        with ExitStack() as stack, api.client() as http:
            for _ in range(200):
                stack.enter_context(_dial(api))
            assert http.get("/healthz").status_code == 200
    finally:
        api.kill()


@pytest.mark.parametrize("wrong", [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_what_is_no_http_is_told_so_in_the_words_of_the_api(line: socket.socket, wrong: bytes) -> None:
    line.sendall(wrong)
    said = heard(line)
    assert said.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in said and b"nosniff" in said
    assert b'"status":400' in said


def test_methods_that_clients_invent_are_one_figure(api: Api) -> None:
    with api.client() as http:
        for number in range(20):
            assert http.request(f"INVENTED{number}", "/healthz").status_code == 405
        figures = http.get("/metrics").text
        assert "INVENTED" not in figures and 'method="(other)"' in figures
        assert http.put("/v1/research").headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"<a/>", "application/xml", 415),
        (b"query=x", "application/x-www-form-urlencoded", 415),
        (b"{", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b'{"priority": ' + b"9" * 5_000 + b"}", "application/json", 400),
        (b'{"query": "\xff"}', "application/json", 400),
        (b"", "application/json", 422),
    ],
)
def test_a_body_that_cannot_be_read_is_told_why(api: Api, content: bytes, media_type: str, status: int) -> None:
    with api.client() as http:
        reply = http.post("/v1/research", content=content, headers={"Content-Type": media_type})
    assert reply.status_code == status and reply.json()["status"] == status, reply.text
    assert reply.json()["type"].rsplit(":", 1)[-1] in ("unsupported-media-type", "invalid-request", "invalid-fields")


def test_no_answer_leads_elsewhere(api: Api) -> None:
    with api.client() as http:
        assert http.get("/v1/research/").status_code == 404, "a redirect would forget that TLS was ended before us"


def test_a_browsers_page_of_another_site_is_refused_where_no_key_guards(api: Api) -> None:
    with api.client() as http:
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
                        {"Sec-Fetch-Site": "cross-site"}, {"X-Forwarded-For": "203.0.113.9"},
                        {"Via": "1.1 proxy"}):  # fmt: skip
            assert http.get("/v1/models", headers=headers).status_code == 403
        same = http.get("/v1/models", headers={"Origin": api.url, "Sec-Fetch-Site": "same-origin"})
        assert same.status_code == 200
        preflight = http.options("/v1/models", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in preflight.headers


def test_every_answer_has_its_headers(api: Api) -> None:
    with api.client() as http:
        for path in ("/healthz", "/nope", "/v1/models", "/v1/research/x"):
            headers = http.get(path).headers
            assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
            assert "default-src 'none'" in headers["content-security-policy"] and headers["x-request-id"]
            assert "server" not in headers


@pytest.mark.timeout(180)
def test_a_thousand_idle_readers_keep_nobody_waiting(api: Api) -> None:
    with api.client() as http, ExitStack() as stack:
        made = http.post("/v1/collections", json={"name": "c"}).json()["id"]
        http.post(f"/v1/collections/{made}/files", files={"file": ("a.md", "Tides rise.")}).raise_for_status()
        later = {"query": "Why?", "sources": {"collections": [made]}, "deferrable_until": "2099-01-01T00:00:00Z"}
        job = http.post("/v1/research", json=later).json()
        ask = f"GET {job['urls']['events']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        readers = []
        for _ in range(READERS):
            reader = stack.enter_context(_dial(api))
            reader.sendall(ask)
            readers.append(reader)
        for reader in readers:
            assert reader.recv(4_096).startswith(b"HTTP/1.1 200")
        figures = http.get("/metrics").text
        assert f"agentflow_event_streams {READERS}.0" in figures
        started = time.monotonic()
        for _ in range(20):
            assert http.get("/healthz").status_code == 200
            assert http.get(job["urls"]["self"]).status_code == 200
        assert time.monotonic() - started < 20, "the server still answers"
        http.post(f"/v1/research/{job['id']}/cancel")
        told = [_until_end(reader) for reader in readers]
        broken = [said for said in told if b"event: end" not in said]
        assert not broken, (len(broken), broken[0])


def _until_end(reader: socket.socket) -> bytes:
    said = b""
    while b"event: end" not in said and (piece := reader.recv(65_536)):
        said += piece
    return said


def test_who_waits_for_a_result_is_answered_when_the_server_ends(models: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "agentflow.toml").write_text(toml(models, "[server]\nshutdown_s = 30\n"))
    api = Api(tmp_path)
    with api.client() as http, ThreadPoolExecutor(1) as pool:
        made = http.post("/v1/collections", json={"name": "c"}).json()["id"]
        http.post(f"/v1/collections/{made}/files", files={"file": ("a.md", "Tides rise.")}).raise_for_status()
        later = {"query": "Why?", "sources": {"collections": [made]}, "deferrable_until": "2099-01-01T00:00:00Z"}
        job = http.post("/v1/research", json=later).json()
        with httpx.Client(base_url=api.url, timeout=60) as patient:
            # Its headers are there before the signal is: the connection was used before.
            patient.get("/healthz")
            waiting = pool.submit(patient.get, job["urls"]["result"], params={"wait": 50})
            while "agentflow_result_waits 1.0" not in http.get("/metrics").text:
                pass
            assert api.stop()[0] == 0
            assert waiting.result().status_code == 202


def test_the_server_ends_when_it_is_asked_to_with_streams_open(folder: Path) -> None:
    api = Api(folder)
    with api.client() as http:
        made = http.post("/v1/collections", json={"name": "c"}).json()["id"]
        http.post(f"/v1/collections/{made}/files", files={"file": ("a.md", "Tides rise.")}).raise_for_status()
        later = {"query": "Why?", "sources": {"collections": [made]}, "deferrable_until": "2099-01-01T00:00:00Z"}
        job = http.post("/v1/research", json=later).json()
        with http.stream("GET", job["urls"]["events"]) as stream:
            lines = stream.iter_lines()
            next(lines)
            code, said = api.stop()
            assert b"end" not in "".join(lines).encode().split(b"event: ")[-1]
    assert code == 0 and "Traceback" not in said, said
