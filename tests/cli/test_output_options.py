"""How a result is to be, asked on the command line and in Python; real models, scripted or tiny."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentflow import Flow, JobOutput, Report, Settings, UsageError
from tests.conftest import RUNGS
from tests.server.test_output import DRAFT, FILLED, GERMAN, PLAN, PULL, QUESTION, RISE, SCHEMA, TIDES, judgement
from tests.servers.openai_server import ScriptedServer

SHAPED = {"json": {"place": "Bay of Fundy", "rise_m": 16, "kind": "flood", "why": GERMAN[1]}}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "agentflow", *arguments], capture_output=True, text=True, timeout=55, check=False
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


def configure(here: Path, server: ScriptedServer) -> None:
    (here / "agentflow.toml").write_text(
        f'[models.small]\nbackend = "openai"\nbase_url = "{server.url}"\nretries = 0\n'
        'price = { input = 1, output = 4 }\nenergy = { kind = "remote" }\n'
    )
    (here / "tides.md").write_text(TIDES)
    (here / "schema.json").write_text(json.dumps(SCHEMA))


def test_every_option_reaches_the_report(here: Path, scripted_server: ScriptedServer) -> None:
    configure(here, scripted_server)
    states = [judgement("states", "rises by 16 metres"), judgement("states", "twice a day")]
    scripted_server.script({"*": [PLAN, DRAFT, *states, {"json": {"claims": GERMAN}}, SHAPED]})
    done = run(
        "research", QUESTION, "tides.md", "--json", "--max-words", "12", "--language", "de", "--citations", "links",
        "--schema", "schema.json", "--verify", "judged",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = Report.model_validate_json(done.stdout)
    assert [(claim.text, claim.judged) for claim in report.claims] == [(GERMAN[0], True)]
    assert [claim.text for claim in report.left_out] == [GERMAN[1]]
    assert (report.language, report.citation_style, report.max_words) == ("de", "links", 12)
    assert report.basis is not None
    assert report.basis["/why"] == ("c2",)
    shown = run("report", "latest")
    assert '"rise_m": 16' in shown.stdout
    assert "1 more claim stands" in shown.stdout
    assert "(tides.md:3)" in run("report", "latest", "--markdown").stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--language", "german"), "--language: 'german' is no BCP 47"),
        (("--max-words", "0"), "--max-words: "),
        (("--schema", "none.json"), "none.json cannot be read"),
        (("--schema", "tides.md"), "tides.md is not JSON"),
        (("--schema", "broken.json"), "--schema: is no JSON Schema"),
        (("--schema", "list.json"), "--schema: "),
        (("--citations", "endnotes"), "--citations"),
        (("--verify", "never"), "--verify"),
    ],
)
def test_an_option_that_cannot_be_is_told_in_one_line(here: Path, options: tuple[str, ...], words: str) -> None:
    (here / "tides.md").write_text(TIDES)
    (here / "broken.json").write_text('{"type": "heroic"}')
    (here / "list.json").write_text("[1]")
    for command in (("research",), ("jobs", "submit")):
        done = run(*command, QUESTION, "tides.md", *options)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
    assert not (here / ".agentflow" / "runs").exists()


def test_a_job_is_submitted_with_the_same_options(here: Path) -> None:
    (here / "tides.md").write_text(TIDES)
    (here / "schema.json").write_text(json.dumps(SCHEMA))
    options = ("--language", "pt-br", "--max-words", "99", "--citations", "footnotes", "--schema", "schema.json")
    done = run("jobs", "submit", QUESTION, "tides.md", *options, "--verify", "judged", "--json")
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)["spec"]
    assert spec["verify"] == "judged"
    assert spec["output"] == {
        "format": "json", "json_schema": SCHEMA, "language": "pt-BR", "max_words": 99, "citations": "footnotes",
    }  # fmt: skip


async def test_a_flow_gives_a_form_at_once_and_as_a_durable_job(here: Path, scripted_server: ScriptedServer) -> None:
    configure(here, scripted_server)
    scripted_server.script({"*": [PLAN, DRAFT, {"json": FILLED}, PLAN, DRAFT, {"json": FILLED}]})
    async with Flow.from_config() as flow:
        report = await flow.research(QUESTION, ["tides.md"], output=JobOutput(json_schema=SCHEMA))
        assert report.data == FILLED
        job = await flow.submit(query=QUESTION, sources=["tides.md"], output={"json_schema": SCHEMA})
        found = await job.result()
        assert (found.output, found.partial) == (FILLED, False)
        assert found.basis is not None
        assert found.basis["/rise_m"] == ("c1",)
        with pytest.raises(UsageError, match=r"output\.language"):
            await flow.submit(query=QUESTION, sources=["tides.md"], output={"language": "german"})


async def test_a_tiny_llama_that_can_do_none_of_it_loses_nothing(here: Path) -> None:
    tiny: dict[str, Any] = {
        "backend": "llamacpp", "path": str(RUNGS / "large.gguf"), "context": 4096, "max_output": 48,
    }  # fmt: skip
    (here / "tides.md").write_text(TIDES)
    settings = Settings.model_validate({"models": {"tiny": tiny}})
    output = JobOutput(language="de", json_schema=SCHEMA)
    async with Flow(settings) as flow:
        report = await flow.research(QUESTION, ["tides.md"], output=output, verify="judged")
    assert {claim.text for claim in report.claims} == {RISE, PULL}
    assert all(claim.judged is False and claim.original is None for claim in report.claims)
    assert report.ending is not None
    assert set(report.ending.undone) >= {"verification", "translation", "shaping"}
    asked = {attempt.call for attempt in report.meter.attempts if attempt.rung == "tiny"}
    assert {"verification/judge-c1", "translation/translate", "shaping/shape"} <= asked
    assert report.meter.total.usd == "0"
