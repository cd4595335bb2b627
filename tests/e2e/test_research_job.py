"""The research job as its user sees it: the command in a process of its own, on real documents."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentflow.research.citations import stands
from agentflow.research.report import NOT_ANSWERED, Citation, Report
from agentflow.research.sources.store import load_text
from tests.conftest import PROJECT, RUNGS
from tests.servers.openai_server import ScriptedServer

QUESTION = "How does agentflow keep a chain from overspending?"
DOCS = str(PROJECT / "docs")
README = str(PROJECT / "README.md")
COMMAND = [sys.executable, "-m", "agentflow"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


def report_of(done: subprocess.CompletedProcess[str]) -> Report:
    return Report.model_validate_json(done.stdout)


def configure(here: Path, server: ScriptedServer, **tables: Any) -> None:
    (here / "agentflow.toml").write_text(
        "\n".join(
            f'[models.{name}]\nbackend = "openai"\nmodel = "{name}"\nbase_url = "{server.url}"\ndefault_output = 600\n'
            f'price = {{ input = 1, output = 4 }}\nenergy = {{ kind = "remote" }}\nretries = 0\ntimeout_s = 20'
            for name in ("small", "large")
        )
    )


HONEST = {"small": [{"responder": "planning"}, {"responder": "quoting"}]}


def test_the_readmes_question_is_answered_by_code_at_no_cost(here: Path) -> None:
    done = run("research", QUESTION, DOCS, README)
    assert done.returncode == 0
    assert "before a call leaves" in done.stdout or "before the call leaves" in done.stdout
    assert "[1]" in done.stdout
    assert "$0" in done.stdout
    assert "synthesis: extractive synthesiser (code)" in " ".join(done.stdout.split())


def test_every_citation_stands_in_the_stored_source_byte_for_byte(here: Path) -> None:
    report = report_of(run("research", QUESTION, DOCS, README, "--json"))
    folder = here / ".agentflow" / "runs" / report.job
    assert report.answered
    assert report.claims
    citations: list[Citation] = [citation for claim in report.claims for citation in claim.citations]
    for citation in citations:
        assert stands(citation, load_text(folder, citation.source_id, citation.sha256))
    assert {path.name for path in folder.iterdir()} == {
        "report.json", "report.md", "report.html", "events.jsonl", "sources",
    }  # fmt: skip
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["kind"], events[-1]["kind"]) == ("job.started", "job.ended")
    assert report.meter.total.usd == "0"
    assert report.meter.total.joules.mean > 0
    assert report.meter.total.joules.provenance == "modelled"


@pytest.mark.parametrize(
    "question", ["What is the capital of Mongolia?", "Which Kubernetes operator does agentflow ship with?"]
)
def test_a_question_the_sources_cannot_answer_is_not_answered(here: Path, question: str) -> None:
    done = run("research", question, DOCS)
    assert done.returncode == 0
    assert NOT_ANSWERED in done.stdout
    assert "[1]" not in done.stdout


def test_an_old_report_is_printed_again_and_a_changed_source_is_noticed(here: Path) -> None:
    report = report_of(run("research", QUESTION, DOCS, "--json"))
    again = run("report", "latest")
    assert again.returncode == 0
    assert report.claims[0].text[:40] in " ".join(again.stdout.split())
    assert report_of(run("report", report.job, "--json")) == report
    assert run("report", report.job, "--markdown").stdout.startswith("# ")
    stored = here / ".agentflow" / "runs" / report.job / "sources" / f"{report.sources[0].id}.txt"
    stored.write_text(stored.read_text("utf-8") + "!", "utf-8")
    changed = run("report", report.job)
    assert changed.returncode == 2
    assert "was changed since it was read" in changed.stderr
    assert run("report", "never-was").returncode == 2


def test_with_a_model_configured_its_rungs_serve_planning_and_synthesis(
    here: Path, scripted_server: ScriptedServer
) -> None:
    configure(here, scripted_server)
    scripted_server.script(HONEST)
    done = run("research", QUESTION, DOCS, "--json")
    report = report_of(done)
    assert done.returncode == 0, done.stderr
    assert report.answered
    assert (report.rungs["planning"], report.rungs["synthesis"]) == ("small (model)", "small (model)")
    assert report.rungs["retrieval"] == "BM25 (code)"
    assert report.meter.total.input_tokens > 0
    assert float(report.meter.total.usd) > 0
    assert [a.rung for a in report.meter.attempts if a.kind == "model"] == ["small", "small"]


def test_the_price_book_prices_a_model_that_has_no_price_of_its_own(
    here: Path, scripted_server: ScriptedServer
) -> None:
    (here / "agentflow.toml").write_text(
        f'[models.small]\nbackend = "openai"\nmodel = "gpt-4o"\nbase_url = "{scripted_server.url}"\n'
    )
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
    scripted_server.script(
        {"gpt-4o": [{"responder": "planning", "usage": usage}, {"responder": "quoting", "usage": usage}]}
    )
    report = report_of(run("research", QUESTION, DOCS, "--json"))
    assert report.rungs["synthesis"] == "small (model)"
    # 600 x $2.50 + 400 x $1.25 + 100 x $10 a million, twice.
    assert report.meter.total.usd == "0.006"
    assert report.meter.total.cached_input_tokens == 800


def test_litellm_serves_the_job_through_its_own_backend(here: Path, scripted_server: ScriptedServer) -> None:
    (here / "agentflow.toml").write_text(
        f'[models.remote]\nbackend = "litellm"\nmodel = "openai/m"\nbase_url = "{scripted_server.url}"\n'
        'api_key_env = "A_KEY"\nprice = { input = 1, output = 4 }\n'
    )
    scripted_server.script({"m": HONEST["small"]})
    done = run("research", QUESTION, DOCS, "--json", A_KEY="sk-very-secret-key")
    report = report_of(done)
    assert done.returncode == 0, done.stderr
    assert (report.rungs["planning"], report.rungs["synthesis"]) == ("remote (model)", "remote (model)")
    assert report.meter.total.output_tokens > 0
    assert scripted_server.requests()[0]["headers"]["Authorization"] == "Bearer sk-very-secret-key"
    folder = here / ".agentflow" / "runs" / report.job
    kept = "".join(path.read_text("utf-8") for path in folder.rglob("*") if path.is_file())
    assert "very-secret" not in kept + done.stdout + done.stderr


def test_llama_cpp_in_process_is_asked_and_a_model_too_small_for_it_leaves_the_answer_to_code(here: Path) -> None:
    (here / "agentflow.toml").write_text(
        f'[models.tiny]\nbackend = "llamacpp"\npath = "{RUNGS / "large.gguf"}"\ncontext = 2048\ndefault_output = 16\n'
    )
    (here / "tides.md").write_text("# Tides\n\nThe tide in the Bay of Fundy rises by 16 metres.\n")
    done = run("research", "How high does the tide in the Bay of Fundy rise?", "tides.md", "--json")
    report = report_of(done)
    assert done.returncode == 0, done.stderr
    assert report.rungs["synthesis"] == "extractive synthesiser (code)"
    asked = [attempt for attempt in report.meter.attempts if attempt.rung == "tiny"]
    assert asked
    assert all(attempt.verdict.startswith(("rejected", "failed")) for attempt in asked)
    assert report.meter.total.usd == "0"


@pytest.mark.browser
def test_every_citation_of_the_readmes_question_clicks_through_to_its_span(here: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        assert not os.environ.get("AGENTFLOW_REQUIRE_BROWSER"), "AGENTFLOW_REQUIRE_BROWSER is set, there is no Chromium"
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    report = report_of(run("research", QUESTION, DOCS, README, "--json"))
    page_of_report = here / ".agentflow" / "runs" / report.job / "report.html"
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page()
        page.goto(page_of_report.as_uri())
        links = page.locator("a.mark")
        assert links.count() == sum(len(claim.citations) for claim in report.claims)
        for number, claim in enumerate(report.claims):
            links.nth(number).click()
            assert page.locator("mark:target").evaluate("e => e.textContent") == claim.citations[0].quote
        browser.close()


def test_a_failed_check_is_repaired_once_then_escalated(here: Path, scripted_server: ScriptedServer) -> None:
    configure(here, scripted_server)
    lie = {
        "answered": True,
        "claims": [{"text": "It cannot.", "question": 1, "citations": [{"passage": 1, "quote": "made up"}]}],
    }
    scripted_server.script({
        "small": [{"responder": "planning"}, {"json": lie}, {"json": lie}], "large": [{"responder": "quoting"}],
    })  # fmt: skip
    report = report_of(run("research", QUESTION, DOCS, "--json"))
    assert report.rungs["synthesis"] == "large (model)"
    verdicts = [(a.rung, a.verdict.split(":")[0]) for a in report.meter.attempts if a.call.startswith("synthesis/")]
    assert verdicts == [
        ("extractive synthesiser", "kept"), ("small", "rejected"), ("small", "rejected"), ("large", "accepted"),
    ]  # fmt: skip
    assert "does not stand in passage 1" in scripted_server.requests()[2]["body"]["messages"][-1]["content"]
    assert all("made up" not in claim.text for claim in report.claims)


def test_a_model_that_lies_in_part_is_shown_as_unsupported_in_that_part(
    here: Path, scripted_server: ScriptedServer
) -> None:
    (here / "doc.md").write_text("# Tides\n\nThe tide in the Bay of Fundy rises by 16 metres every single day.\n")
    quote = "The tide in the Bay of Fundy rises by 16 metres every single day."
    claims = [
        {
            "text": "The tide in the Bay of Fundy rises by 16 metres.",
            "question": 1,
            "citations": [{"passage": 1, "quote": quote}],
        },
        {
            "text": "The tide in the Bay of Fundy rises by 99 metres.",
            "question": 1,
            "citations": [{"passage": 1, "quote": quote}],
        },
    ]
    configure(here, scripted_server)
    scripted_server.script({"*": [{"responder": "planning"}, {"json": {"answered": True, "claims": claims}}]})
    report = report_of(run("research", "How high does the tide in the Bay of Fundy rise?", "doc.md", "--json"))
    assert [claim.text for claim in report.claims] == ["The tide in the Bay of Fundy rises by 16 metres."]
    assert [u.text for u in report.unsupported] == ["The tide in the Bay of Fundy rises by 99 metres."]


def test_models_that_cannot_be_reached_leave_the_answer_to_code(here: Path) -> None:
    (here / "agentflow.toml").write_text(
        '[models.gone]\nbackend = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nretries = 0\n'
        "price = { input = 0, output = 0 }\n"
    )
    done = run("research", QUESTION, DOCS, "--json")
    report = report_of(done)
    assert done.returncode == 0
    assert report.answered
    assert report.rungs["synthesis"] == "extractive synthesiser (code)"


@pytest.mark.parametrize(
    ("limit", "value", "currency"),
    [("--max-tokens", "900", "tokens"), ("--max-usd", "0.002", "usd"), ("--max-joules", "3000", "joules")],
)
def test_a_limit_ends_the_job_before_it_is_passed_and_what_there_is_is_delivered(
    here: Path, scripted_server: ScriptedServer, limit: str, value: str, currency: str
) -> None:
    configure(here, scripted_server)
    scripted_server.script(HONEST)
    done = run("research", QUESTION, DOCS, "--json", limit, value)
    report = report_of(done)
    assert done.returncode == 3
    assert report.ending is not None
    assert (report.ending.reason, report.ending.currency) == ("budget", currency)
    assert "synthesis by a model rung" in report.ending.undone
    assert report.answered, "code's own answer is delivered"
    (line,) = report.meter.limits
    assert float(line.spent) <= float(line.limit) == float(value)
    spoken = run("report", "latest").stdout
    assert "Ended early (budget)" in spoken
    assert "Left undone" in spoken


def test_seconds_end_the_job_in_time(here: Path, scripted_server: ScriptedServer) -> None:
    configure(here, scripted_server)
    scripted_server.script({"*": [{"responder": "planning"}, {"text": "too late", "gate": "never"}]})
    started = time.monotonic()
    done = run("research", QUESTION, DOCS, "--json", "--max-seconds", "4")
    report = report_of(done)
    assert done.returncode == 3
    assert report.ending is not None
    assert report.ending.currency == "seconds"
    assert report.answered, "code's own answer is delivered"
    assert report.meter.total.in_doubt_calls == 1
    assert float(report.meter.limits[0].spent) <= 4
    assert time.monotonic() - started < 15


def test_a_limit_that_is_gone_before_anything_was_done_still_gives_a_report(here: Path) -> None:
    done = run("research", QUESTION, DOCS, "--json", "--max-joules", "0.001")
    report = report_of(done)
    assert done.returncode == 3
    assert not report.answered
    assert report.ending is not None
    assert report.ending.undone == ("reading", "planning", "retrieval", "synthesis")


def test_ctrl_c_in_the_middle_keeps_a_partial_report_and_exits_130(here: Path, scripted_server: ScriptedServer) -> None:
    configure(here, scripted_server)
    scripted_server.script({"*": [{"responder": "planning"}, {"text": "never", "gate": "never"}]})
    process = subprocess.Popen(
        [*COMMAND, "research", QUESTION, DOCS, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(scripted_server.requests()) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    report = Report.model_validate_json(out)
    assert report.ending is not None
    assert report.ending.reason == "interrupted"
    assert report.answered, "code answers from the evidence that was found"
    assert report.meter.total.in_doubt_calls == 1
    assert (here / ".agentflow" / "runs" / report.job / "report.html").is_file()


def files_left(here: Path) -> list[str]:
    """All but the ledger: what the planner spent meanwhile stays on record."""
    kept = {".agentflow", "ledger.db", "ledger.db.runs"}
    return sorted(path.name for path in here.rglob("*") if ".agentflow" in path.parts and path.name not in kept)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["research", "", "doc.md"], "question is empty"),
        (["research", "  ", "doc.md"], "question is empty"),
        (["research", "What?", "missing.md"], "missing.md does not exist"),
        (["research", "What?", "empty"], "Nothing to read in empty"),
        (["research", "What?", "zero.txt"], "zero.txt is empty"),
        (["research", "What?", "picture.png"], "binary file"),
        (["research", "What?", "loop"], "Nothing to read in loop"),
        (["research", "What?", "http://127.0.0.1:9/"], "loopback address"),
        (["research", "What?", "http://169.254.169.254/latest"], "link-local address"),
        (["research", "What?", "file:///etc/passwd"], "not an http or https address"),
        (["research", "What?", "doc.md", "--max-usd", "0"], "leaves nothing to spend"),
        (["research", "What?", "doc.md", "--max-usd", "-1"], "leaves nothing to spend"),
        (["research", "What?", "doc.md", "--max-tokens", "many"], "not a number"),
        (["research", "What?", "doc.md", "--max-seconds", "nan"], "leaves nothing to spend"),
        (["research", "What?"], "Missing argument"),
        (["research", "What?", "doc.md", "--config", "none.toml"], "none.toml cannot be read"),
        (["research", "What?", "doc.md", "--out", "empty"], "exists already"),
        (["wrong"], "No such command"),
    ],
)
def test_bad_input_is_one_clear_line_a_non_zero_exit_and_no_run_left_behind(
    here: Path, arguments: list[str], words: str
) -> None:
    (here / "doc.md").write_text("# A document\n\nIt says something about chains.\n")
    (here / "zero.txt").touch()
    (here / "empty").mkdir()
    (here / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (here / "loop").mkdir()
    (here / "loop" / "again").symlink_to(here / "loop")
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stdout == ""
    assert files_left(here) == []
    if done.stderr.startswith("agentflow:"):
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[budget]\nusd = = 1\n", "line 2"),
        ("[budget]\nusd = -1\n", "agentflow.toml, line 2: budget.usd"),
        ("[cascades.default]\nrungs = ['code', 'ghost']\n", "'ghost' is not a model"),
        ("[models.x]\nbackend = 'telepathy'\n", "models.x.backend"),
        ("[models.x]\nbackend = 'openai'\nbase_url = 'http://127.0.0.1:9/v1'\n", "No price is known for model 'x'"),
    ],
)
def test_a_broken_configuration_is_told_with_its_line(here: Path, text: str, words: str) -> None:
    (here / "agentflow.toml").write_text(text)
    (here / "doc.md").write_text("# A document\n\nIt says something about chains.\n")
    done = run("research", "What does it say about chains?", "doc.md")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert files_left(here) == []


def test_a_file_too_large_is_refused_with_the_flag_that_raises_the_limit_and_read_when_raised(here: Path) -> None:
    line = "The quick brown fox jumps over the lazy dog and says nothing about budgets at all.\n"
    (here / "big.txt").write_text(line * 40_000)
    refused = run("research", "What does the fox jump over?", "big.txt", "--max-file-mb", "1")
    assert refused.returncode == 2
    assert "--max-file-mb 4" in refused.stderr
    report = report_of(run("research", "What does the quick brown fox jump over?", "big.txt", "--json"))
    assert report.answered


def test_a_folder_reads_what_it_can_and_says_what_it_could_not(here: Path) -> None:
    folder = here / "mixed"
    folder.mkdir()
    (folder / "good.md").write_text("# Tides\n\nThe tide in the Bay of Fundy rises by 16 metres.\n")
    (folder / "latin.txt").write_bytes("Crème brûlée à la carte, déjà vu, naïve café.".encode("latin-1"))
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4 nonsense")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    (folder / "zero.txt").touch()
    report = report_of(run("research", "How high does the tide in the Bay of Fundy rise?", "mixed", "--json"))
    assert report.sources_read == 2
    assert {Path(s.origin).name for s in report.skipped} == {"bad.pdf", "picture.png", "zero.txt"}
    assert report.answered


def test_a_budget_that_runs_low_is_an_event_of_the_job(here: Path) -> None:
    (here / "tides.md").write_text("# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres.\n")
    done = run("research", "How high is the tide in the Bay of Fundy?", "tides.md", "--max-calls", "4")
    assert done.returncode == 0
    assert "has spent 80% of its calls" in done.stderr
    (events,) = here.glob(".agentflow/runs/*/events.jsonl")
    assert '"kind": "budget.warning"' in events.read_text()


def test_asking_where_nobody_sits_is_a_refusal(here: Path) -> None:
    (here / "tides.md").write_text("# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres.\n")
    done = run("research", "How high is the tide?", "tides.md", "--max-calls", "2", "--on-exceed", "ask")
    assert done.returncode == 3
    assert "Ended early (budget)" in done.stdout
