"""``agentflow budget`` as a person at a terminal uses it, on a ledger that real calls have written."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import Labels, Opening
from agentflow.budget.ledger.sqlite import sqlite_ledger
from agentflow.budget.spend import Quote, Spend
from agentflow.energy.interval import Energy
from agentflow.messages import TokenUsage

COMMAND = [sys.executable, "-m", "agentflow"]


def run(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout if code == 0 else done.stderr + done.stdout


@pytest.fixture
def filled(here: Path) -> Path:
    """A ledger with a settled attempt, one in doubt, one of a process that died, and one dearer than its hold."""

    async def fill() -> None:
        ledger = sqlite_ledger(here / "ledger.db")
        accounts = (("acme/job", Budget().limits), ("acme", Budget(usd=1, tokens=5_000).limits))
        spend = Spend(1, TokenUsage(300, 50, source="provider"), 4_000_000, Energy(50, 20, 90, "modelled"), 1.5)
        for key in ("done", "doubtful", "lost", "dear"):
            quote = Quote(100 if key == "dear" else 1_000, 8_000_000, 200_000_000)
            await ledger.open(Opening(key, "acme/job", quote, accounts, Labels("acme", "job", model="m", kind="model")))
            if key in ("done", "dear"):
                await ledger.close(key, "settled", spend=spend, first_token_s=0.2)
                if key == "done":
                    ledger.judge(key, "accepted", 0.8)
        await ledger.close("doubtful", "in_doubt")
        # Its process is gone, and its lock with it.
        await ledger.aclose()

    asyncio.run(fill())
    return here / "ledger.db"


def test_a_report_of_a_real_job_has_its_figures(here: Path) -> None:
    (here / "tides.md").write_text("# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres.\n")
    job = json.loads(run("research", "How high is the tide in the Bay of Fundy?", "tides.md", "--json"))
    told = run("budget", "report", "--by", "agent")
    assert "Spend by agent: 4 attempts" in told
    assert "synthesis" in told
    report = json.loads(run("budget", "report", "--by", "chain", "--job", job["job"], "--format", "json"))
    assert report["filter"] == {"job": job["job"]}
    assert report["total"]["calls"] == job["meter"]["total"]["calls"]
    assert report["total"]["joules"]["mean"] == pytest.approx(job["meter"]["total"]["joules"]["mean"], abs=1e-5)
    assert "0 differences" in run("budget", "verify")


def test_tables_fit_a_hundred_columns_and_name_what_needs_a_word(filled: Path) -> None:
    told = run("budget", "report", "--ledger", str(filled))
    assert max(map(len, told.splitlines())) <= 100
    for words in ("Spend by model: 4 attempts", "In doubt: 1 call", "Overruns: 1 call", "Still held for 1 attempts"):
        assert words in told


def test_csv_and_json_say_the_same_exactly(filled: Path) -> None:
    (row,) = csv.DictReader(io.StringIO(run("budget", "report", "--ledger", str(filled), "--format", "csv")))
    (group,) = json.loads(run("budget", "report", "--ledger", str(filled), "--format", "json"))["groups"]
    assert (row["model"], row["usd"], row["nano_usd"]) == ("m", "0.016", "16000000")
    assert (group["usd"], group["nano_usd"], group["quality"]["scored"]) == ("0.016", 16_000_000, 1)


def test_what_a_dead_process_held_is_put_in_doubt_listed_and_reconciled(filled: Path) -> None:
    ledger = ("--ledger", str(filled))
    listed = run("budget", "reconcile", *ledger)
    assert [line for line in listed.splitlines() if line in ("doubtful", "lost")] == ["doubtful", "lost"]
    told = run("budget", "reconcile", "lost", "--usd", "0.003", "--input", "280", "--output", "20", *ledger)
    assert "charged before: 1 call, 1,000 tokens, $0.008" in told
    assert "charged now:    1 call, 300 tokens, $0.003" in told
    assert "1 call, 0 tokens, $0" in run("budget", "reconcile", "doubtful", "--nothing", "--note", "bill", *ledger)
    assert "No attempt is in doubt" in run("budget", "reconcile", *ledger)
    assert "0 differences" in run("budget", "verify", *ledger)


def test_accounts_are_listed_and_a_closed_one_is_opened_again(filled: Path) -> None:
    ledger = ("--ledger", str(filled))
    told = run("budget", "accounts", "--all", *ledger)
    assert "cost more than was held for it" in told
    assert "$1.00" in told
    assert "is open" in run("budget", "limits", "acme/job", "--calls", "100", *ledger)
    told = run("budget", "accounts", *ledger)
    assert "cost more" not in told
    assert "100 calls" in told
    assert "may spend 5,000 tokens, $2.50" in run("budget", "limits", "acme", "--usd", "2.5", *ledger)


def test_a_ledger_that_was_tampered_with_is_found_out(filled: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(filled, isolation_level=None)) as connection:
        connection.execute("update account set spent_nano_usd = 1 where id = 'acme'")
    told = run("budget", "verify", "--ledger", str(filled), code=1)
    assert "'acme': $0.000000001 spent are recorded, its entries sum to $0.016" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "--by", "colour"], "colour"),
        (["report", "--since", "yesterday"], "is no moment"),
        (["report", "--since", "2026-12-01", "--until", "2026-01-01"], "not before"),
        (["report", "--plot", "x.bmp"], ".png or .svg"),
        (["report", "--plot", "nowhere/x.png"], "no such folder"),
        (["reconcile", "ghost", "--nothing"], "no attempt 'ghost'"),
        (["reconcile", "doubtful"], "Give what it cost"),
        (["reconcile", "doubtful", "--nothing", "--usd", "1"], "Give what it cost"),
        (["reconcile", "doubtful", "--usd", "-1"], "no amount of dollars"),
        (["reconcile", "doubtful", "--usd", "much"], "no amount of dollars"),
        (["reconcile", "done", "--nothing"], "not in doubt"),
        (["limits", "ghost", "--usd", "1"], "no account 'ghost'"),
        (["limits", "acme", "--usd", "0"], "leaves nothing to spend"),
        (["accounts", "--ledger", "none.db"], "there is no ledger none.db"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(filled: Path, arguments: list[str], words: str) -> None:
    where = [] if "--ledger" in arguments else ["--ledger", str(filled)]
    assert words in run("budget", *arguments, *where, code=2)
    assert not Path("none.db").exists()


def test_without_a_ledger_nothing_is_made_and_a_forgetful_one_is_told(here: Path) -> None:
    assert "Nothing is recorded yet" in run("budget", "report", code=2)
    (here / "agentflow.toml").write_text('[ledger]\nkind = "memory"\n')
    assert "in memory" in run("budget", "report", code=2)
    assert [path.name for path in here.iterdir()] == ["agentflow.toml"]
