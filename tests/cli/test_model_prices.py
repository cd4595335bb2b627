"""``agentflow models --prices``: who says what a model costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentflow", "models", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


CONFIGURED = """
[models.near]
backend = "openai"
model = "gpt-5.6"
base_url = "http://127.0.0.1:9/v1"
[models.mine]
backend = "openai"
base_url = "http://127.0.0.1:9/v1"
price = { input = 0, output = 0 }
[models.unpriced]
backend = "openai"
base_url = "http://127.0.0.1:9/v1"
[models.tiny]
backend = "llamacpp"
path = "tiny.gguf"
[models.dear]
backend = "litellm"
model = "anthropic/claude-haiku-4-5"
price = { input = 2, output = 5, image = 0.01, date = 2026-11-01 }
"""


def test_every_configured_model_is_shown_with_its_rates_its_source_and_who_differs(here: Path) -> None:
    (here / "agentflow.toml").write_text(CONFIGURED)
    done = run("--prices")
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 100
    near, rest = done.stdout.split("mine\n")
    rows = {line[:30].strip(): line[30:].split() for line in near.splitlines() if line.startswith("  ")}
    assert rows["usual"] == ["4", "20", "0.4", "5", "20*"]
    assert rows["usual, above 272,000 tokens"] == ["8", "30", "0.8", "10", "30*"]
    assert rows["batch"] == ["2", "10", "0.2", "2.5", "10*"]
    assert "by agentflow 20" in near and "not checked" in near
    assert near.count(": the same") == 2
    mine, rest = rest.split("unpriced\n")
    assert mine.split() == ["usual", "0", "0", "0", "0", "0", "by", "agentflow.toml"]
    unpriced, rest = rest.split("tiny\n")
    assert "no price is known" in unpriced and "price = {" in unpriced
    tiny, dear = rest.split("dear  anthropic/claude-haiku-4-5\n")
    assert "no price per token" in tiny
    assert "$0.01 an image" in dear and "by agentflow.toml, 2026-11-01" in dear
    assert dear.count("input: $1, not $2 (-50%)") == 3


def test_names_may_be_ids_of_the_price_book(here: Path) -> None:
    shown = run("--prices", "deepseek/deepseek-chat", "whisper-1", "perplexity/sonar").stdout
    assert "by genai-prices " in shown
    assert "output: $0.42, not $1.1 (-62%)" in shown
    assert "$0.0001 a second of audio" in shown
    assert "$0.012 a request" in shown


def test_json_states_the_same(here: Path) -> None:
    (here / "agentflow.toml").write_text(CONFIGURED)
    near, mine, unpriced, _, dear = json.loads(run("--prices", "--json").stdout)
    usual, long, batch, _ = near["price"]["lists"]
    assert (usual["input"], usual["cache_write"], usual["assumed"]) == ("4", "5", ["reasoning"])
    assert (long["above"], long["output"]) == (272_000, "30")
    assert (batch["batch"], batch["input"]) == (True, "2")
    assert near["price"]["source"].startswith("agentflow 20") and near["price"]["date"].startswith("20")
    assert [other["differences"] for other in near["others"]] == [[], []]
    assert all(other["source"] and other["date"] for other in near["others"])
    assert (mine["price"]["source"], unpriced["price"]) == ("agentflow.toml", None)
    expected = {"unit": "input", "above": 0, "batch": False, "ours": "2", "theirs": "1"}
    assert dear["others"][0]["differences"] == [expected]


@pytest.mark.parametrize(
    "arguments", [("--prices", "no-such-model"), ("--prices", "gpt-4o", ""), ("--prices", "a\nb"), ("gpt-4o",)]
)
def test_a_name_that_means_nothing_is_one_line_and_exit_code_2(here: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("agentflow: ")


def test_no_models_and_no_names_say_how_to_go_on(here: Path) -> None:
    assert "agentflow models --prices gpt-4o" in run("--prices").stdout


def test_the_documentation_shows_what_is_printed() -> None:
    page = (PROJECT / "docs/prices.md").read_text("utf-8")
    command, _, shown = page.split("```\n$ agentflow models ")[1].split("```")[0].partition("\n")
    assert run(*command.split()).stdout == shown


def test_the_price_in_the_documentation_can_be_given(tmp_path: Path) -> None:
    page = (PROJECT / "docs/prices.md").read_text("utf-8")
    file = tmp_path / "agentflow.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    done = run("--prices", "--config", str(file))
    assert done.returncode == 0, done.stderr
    assert "$0.01 an image, $0.0001 a second of audio" in done.stdout
