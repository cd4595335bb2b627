from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

PROGRAM = """
import sys
from agentflow.telemetry import tracing
from agentflow.telemetry.export import setup
print(setup(compat=sys.argv[1:]))
with tracing.job_span("research", "j1") as span:
    span.ended("done")
with tracing.code_span("code", number=1) as span:
    span.finish(tracing.AttemptFacts("accepted", "", 0.9, 0, (1.0, 0.5, 2.0), "modelled", 0.1))
"""


class Collector(ThreadingHTTPServer):
    """Keeps the body of every request by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keep)
        self.bodies: dict[str, bytes] = {}


class _Keep(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies[self.path] = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(endpoint: str | None, *compat: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    if endpoint:
        environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *compat],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_spans_and_metrics_arrive_at_the_collector(collector: Collector) -> None:
    done = run(f"http://127.0.0.1:{collector.server_port}")
    assert done.stdout.strip() == "True"
    assert b"invoke_workflow research" in collector.bodies["/v1/traces"]
    assert b"agentflow.energy" in collector.bodies["/v1/metrics"]
    assert b"openinference" not in collector.bodies["/v1/traces"]


def test_spans_arrive_under_the_names_of_the_viewers_that_were_named(collector: Collector) -> None:
    run(f"http://127.0.0.1:{collector.server_port}", "openinference")
    assert b"openinference.span.kind" in collector.bodies["/v1/traces"]


def test_a_collector_that_is_away_delays_the_end_by_seconds_at_most_and_is_not_complained_of() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        started = time.monotonic()
        done = run(f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert time.monotonic() - started < 10
    assert (done.stdout.strip(), done.stderr) == ("True", "")


def test_nothing_is_set_up_unless_a_collector_is_named() -> None:
    assert run(None).stdout.strip() == "False"
