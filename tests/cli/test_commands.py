from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT, RUNGS
from tests.servers.openai_server import ScriptedServer


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentflow", *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_help_and_version_say_what_there_is() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("research", "report", "models", "energy", "doctor"):
        assert command in done.stdout
        assert run(command, "--help").returncode == 0
    assert run("--version").stdout.strip().endswith("0.1.0")


def test_models_lists_price_energy_latency_and_reach(here: Path, scripted_server: ScriptedServer) -> None:
    (here / "agentflow.toml").write_text(
        f'[models.near]\nbackend = "openai"\nmodel = "gpt-4o"\nbase_url = "{scripted_server.url}"\n'
        '[models.gone]\nbackend = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nprice = { input = 0.5, output = 1.5 }\n'
        f'[models.tiny]\nbackend = "llamacpp"\npath = "{RUNGS / "small.gguf"}"\n'
        '[models.unpriced]\nbackend = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
    )
    done = run("models", "--json")
    assert done.returncode == 0, done.stderr
    near, gone, tiny, unpriced = json.loads(done.stdout)
    assert (near["reachable"], near["input"], near["price_source"][:9]) == (True, "2.5", "agentflow")
    assert near["round_trip_ms"] > 0
    assert near["joules_low"] < near["joules_mean"] < near["joules_high"]
    assert (gone["reachable"], gone["output"], gone["price_source"]) == (False, "1.5", "agentflow.toml")
    assert (tiny["reachable"], tiny["input"]) == (True, "0")
    assert (unpriced["reachable"], unpriced["price_source"]) == (False, "unknown")
    assert "No price is known" in unpriced["detail"]
    spoken = run("models").stdout
    for words in (
        "near  gpt-4o (openai)",
        "$2.5 in, $10 out",
        "NOT reachable: 127.0.0.1:9",
        "round trip",
        "joules unknown",
    ):
        assert words in spoken


def test_models_without_any_says_how_to_go_on(here: Path) -> None:
    assert "code rungs alone" in run("models").stdout


def test_doctor_says_what_is_missing_and_how_to_get_it(here: Path) -> None:
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert "ok       python" in done.stdout
    assert "pip install 'agentflow[embeddings]'" in done.stdout or "extra embeddings: installed" in done.stdout
    (here / "agentflow.toml").write_text(
        '[models.gone]\nbackend = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nprice = { input = 0, output = 0 }\n'
        'api_key_env = "A_KEY_NOT_SET"\n'
    )
    done = run("doctor")
    assert done.returncode == 1
    assert "MISSING  key of gone: variable A_KEY_NOT_SET is not set" in done.stdout
    assert "MISSING  model gone: 127.0.0.1:9 does not answer" in done.stdout
    (here / "agentflow.toml").write_text("[budget]\nusd = oops\n")
    broken = run("doctor")
    assert broken.returncode == 1
    assert "line 2" in broken.stdout


def test_doctors_example_is_a_configuration(here: Path) -> None:
    (here / "agentflow.toml").write_text(run("doctor", "--example").stdout)
    assert "MISSING  configuration" not in run("doctor").stdout


def test_plain_lines_go_to_stderr_and_the_report_to_stdout(here: Path) -> None:
    done = run("research", "How does agentflow keep a chain from overspending?", str(PROJECT / "docs"))
    assert "sources read" in done.stderr
    assert "synthesis ended" in done.stderr
    assert "sources read" not in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(pty, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_row_for_each_sub_agent_while_it_works(here: Path, scripted_server: ScriptedServer) -> None:
    (here / "agentflow.toml").write_text(
        f'[models.small]\nbackend = "openai"\nbase_url = "{scripted_server.url}"\nprice = {{ input = 1, output = 2 }}\n'
    )
    scripted_server.script({"small": [{"responder": "planning"}, {"responder": "quoting", "gate": "go"}]})
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {
        "COLUMNS": "120",
        "TERM": "xterm",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "agentflow", "research", "How does a chain hold a budget?", str(PROJECT / "docs")],
        stdout=subprocess.PIPE,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    seen = b""
    while not re.search(rb"synthesis +working", seen):
        seen += os.read(master, 4096)
    held = seen.decode("utf-8", "replace")
    assert "planner" in held
    assert "retrieval-1" in held
    scripted_server.release("go")
    while True:
        try:
            if not os.read(master, 4096):
                break
        except OSError:
            break
    out, _ = process.communicate(timeout=30)
    os.close(master)
    assert process.returncode == 0
    assert b"[1]" in out
