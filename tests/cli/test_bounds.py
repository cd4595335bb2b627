"""What ``research`` reads of the sources it is given, from the command line and from Python."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from agentflow import Flow, SourceError
from agentflow.research.sources import Scope
from tests.cli.test_commands import run

QUESTION = "How high does the tide rise in the Bay of Fundy?"


@pytest.fixture
def tides(here: Path) -> Path:
    """Files of 2015 and of 2024."""
    folder = here / "tides"
    folder.mkdir()
    for year, height in ((2015, "sixteen"), (2024, "seventeen")):
        path = folder / f"{year}.txt"
        path.write_text(f"The tide in the Bay of Fundy rises by {height} metres.")
        moment = date(year, 6, 1).toordinal() - date(1970, 1, 1).toordinal()
        os.utime(path, (moment * 86_400, moment * 86_400))
    return folder


def test_the_command_reads_only_the_days_asked_for(tides: Path) -> None:
    done = run("research", QUESTION, str(tides), "--after", "2020-01-01")
    assert done.returncode == 0 and "seventeen" in done.stdout and "sixteen" not in done.stdout
    assert "Not read: 1 (1 outside the dates asked for)" in " ".join(done.stdout.split())


def test_nothing_of_these_days_is_an_answer(tides: Path) -> None:
    done = run("research", QUESTION, str(tides), "--before", "2001-01-01")
    assert done.returncode == 0 and "do not answer" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--after", "2020-01-02", "--before", "2020-01-01"), "after: is later than before"),
        (("--after", "yesterday"), "after: is not a day"),
        (("--include-domain", "exa mple"), "include_domains"),
    ],
)
def test_what_cannot_be_is_one_line(tides: Path, options: tuple[str, ...], words: str) -> None:
    done = run("research", QUESTION, str(tides), *options)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_no_network_and_domains_hold_at_the_command_line(here: Path, pages: str) -> None:
    for options, words in (
        (("--no-network",), "may not use the network"),
        (("--exclude-domain", "127.0.0.1"), "below exclude_domains"),
    ):
        done = run("research", QUESTION, f"{pages}/article", "--allow-private", *options)
        assert done.returncode == 2 and words in done.stderr


async def test_python_says_the_same_with_a_scope(tides: Path, pages: str) -> None:
    async with Flow.from_config() as flow:
        report = await flow.research(QUESTION, [tides], scope=Scope(before=date(2020, 1, 1)))
        assert "sixteen" in report.claims[0].text and report.skipped[0].cause == "date"
        with pytest.raises(SourceError, match="may not use the network"):
            await flow.research(QUESTION, [f"{pages}/article"], scope=Scope(allow_network=False))
