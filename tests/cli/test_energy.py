from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GPU = '{ kind = "gpu", model = "meta-llama/Llama-3.1-8B-Instruct", chip = "H100", engine = "vllm-0.11", batch = 16 }'


def agentflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "agentflow", *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def run(here: Path) -> Path:
    """The folder of a run on code alone, with a call of a model added to its report."""
    (here / "notes.md").write_text("# Kettles\n\nA kettle of one litre takes 400 kilojoules to boil.\n")
    done = agentflow("research", "What does a kettle take to boil?", "notes.md", "--out", "run")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((here / "run" / "report.json").read_text())
    energy = {
        "input_tokens": 500, "cached_input_tokens": 200, "output_tokens": 300, "mean": 1.0, "low": 0.5, "high": 2.0,
        "provenance": "modelled", "scope": "facility", "assumed": [], "basis": {"batch": 64.0, "token_s": 0.02},
    }  # fmt: skip
    attempts = report["meter"]["attempts"]
    attempts.append({**attempts[0], "call": "synthesis/write", "rung": "llama", "kind": "model", "energy": energy})
    attempts.append({**attempts[0], "energy": None})
    (here / "run" / "report.json").write_text(json.dumps(report))
    return here / "run"


def test_a_run_lists_its_calls_and_each_is_derived_to_what_was_stored(run: Path) -> None:
    listed = agentflow("energy", "explain", str(run)).stdout.splitlines()
    assert listed[0].startswith("  1  ") and listed[0].endswith("J")
    assert listed[-2].startswith("all calls: ")
    stored = json.loads((run / "report.json").read_text())["meter"]["attempts"][0]["energy"]
    lines = agentflow("energy", "explain", f"{run}:1").stdout.splitlines()
    cpu_s = next(float(line.split(" = ")[1].split()[0]) for line in lines if line.startswith("mean CPU seconds"))
    assert cpu_s * 7.5 == pytest.approx(stored["mean"], rel=1e-4)
    assert lines[-1].startswith("stored by the run: ") and "differs" not in lines[-1]


def test_a_models_call_is_derived_from_what_the_run_kept_of_it(run: Path) -> None:
    number = len(json.loads((run / "report.json").read_text())["meter"]["attempts"]) - 1
    gone = agentflow("energy", "explain", f"{run}:{number}")
    assert gone.returncode == 2 and "no longer has" in gone.stderr
    config = run.parent / "agentflow.toml"
    config.write_text(f'[models.llama]\nbackend = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nenergy = {GPU}\n')
    printed = agentflow("energy", "explain", f"{run}:{number}").stdout
    assert "uncached input tokens = 300\ncached input tokens = 200\noutput tokens = 300\nbatch = 64" in printed
    assert "step time = 0.02 * 1 + " in printed
    assert "stored by the run: 1 J (0.5 to 2 J, modelled, facility). That differs" in printed


def test_a_call_that_is_not_there_or_kept_nothing_says_so(run: Path) -> None:
    for call, says in ((f"{run}:99", "has calls 1 to"), ("nowhere:1", "No run 'nowhere'"), ("latest", "No runs in")):
        done = agentflow("energy", "explain", call)
        assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    last = len(json.loads((run / "report.json").read_text())["meter"]["attempts"])
    assert "kept no figures" in agentflow("energy", "explain", f"{run}:{last}").stderr
