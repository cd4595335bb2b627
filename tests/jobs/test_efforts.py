"""Efforts: what each may spend, how deep it looks, and that it can make the calls it is meant for."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, get_args

import pytest

from agentflow import Budget, Flow, Settings
from agentflow.config import EffortName, ResearchSettings, load_settings
from agentflow.errors import ConfigError
from agentflow.jobs.effort import EFFORTS, effort_of, efforts, limits_of
from agentflow.jobs.job import Effort, JobBudget
from agentflow.research.depth import Depth
from tests.cli.test_commands import run
from tests.servers.openai_server import ScriptedServer

NAMES: tuple[EffortName, ...] = get_args(EffortName)
QUESTION = "How high does the tide rise in the Bay of Fundy, and why does it rise so high there?"
REFUSED = [{"text": "not what was asked for"}, {"text": "nor is this"}]


def settings(server: ScriptedServer, models: int, energy: str, **tables: Any) -> Settings:
    model = {"backend": "openai", "base_url": server.url, "price": {"input": 1, "output": 2}, "retries": 0}
    named = {f"model-{number}": {**model, "energy": {"kind": energy}} for number in range(models)}
    return Settings.model_validate({"models": named, **tables})


def corpus(here: Path) -> str:
    """Files that fill every passage to the last character."""
    folder = here / "tides"
    folder.mkdir()
    for number in range(70):
        sentence = f"The tide in the Bay of Fundy rises high for reason {number} of those that are known. "
        (folder / f"{number:02}.txt").write_text(sentence * 24)
    return str(folder)


@pytest.mark.parametrize("energy", ["remote", "cpu"])
@pytest.mark.parametrize(("effort", "models"), [("lite", 1), ("base", 2), ("core", 3), ("pro", 3), ("ultra", 3)])
async def test_every_effort_can_make_the_calls_it_is_meant_for(
    effort: EffortName, models: int, energy: str, scripted_server: ScriptedServer, here: Path
) -> None:
    steps: dict[str, list[dict[str, Any]]] = {f"model-{number}": [*REFUSED, *REFUSED] for number in range(models - 1)}
    steps[f"model-{models - 1}"] = [REFUSED[0], {"responder": "planning"}, REFUSED[0], {"responder": "quoting"}]
    scripted_server.script(steps)
    async with Flow(settings(scripted_server, models, energy)) as flow:
        report = await flow.research(QUESTION, [corpus(here)], effort=effort)
    assert report.ending is None, report.ending
    last = f"model-{models - 1} (model)"
    assert (report.rungs["planning"], report.rungs["synthesis"]) == (last, last)
    asked = [request["body"]["max_tokens"] for request in scripted_server.requests()]
    assert asked == [400] * 2 * models + [1024] * 2 * models, "no reply was cut short for lack of room"


async def test_a_small_effort_climbs_the_first_models_only(scripted_server: ScriptedServer, here: Path) -> None:
    scripted_server.script({"*": [{"text": "never what was asked for"}]})
    (here / "tides.txt").write_text(
        "The tide in the Bay of Fundy rises by sixteen metres. It rises so high by resonance."
    )
    climbed: dict[EffortName, set[str]] = {}
    async with Flow(settings(scripted_server, 3, "remote")) as flow:
        for effort in NAMES:
            report = await flow.research(QUESTION, ["tides.txt"], effort=effort)
            climbed[effort] = {line.rung for line in report.meter.attempts if line.kind == "model"}
    assert {effort: len(models) for effort, models in climbed.items()} == {
        "lite": 1, "base": 2, "core": 3, "pro": 3, "ultra": 3,
    }  # fmt: skip
    assert climbed["lite"] == {"model-0"}


async def test_a_deeper_effort_reads_more_passages(scripted_server: ScriptedServer, here: Path) -> None:
    scripted_server.script({"*": [{"responder": "planning"}, {"responder": "quoting"}]})
    folder = corpus(here)
    read: list[int] = []
    async with Flow(settings(scripted_server, 1, "remote")) as flow:
        for effort in ("core", "pro", "ultra"):
            scripted_server.script({"*": [{"responder": "planning"}, {"responder": "quoting"}]})
            await flow.research(QUESTION, [folder], effort=effort)
            asked = scripted_server.requests()[-1]["body"]["messages"][-1]["content"]
            read.append(asked.count("\n[P"))
    assert read == sorted(read) and read[0] < read[1] < read[2]


def test_efforts_rise_in_every_limit_and_auto_is_the_configuration() -> None:
    budgets = [EFFORTS[name].budget for name in NAMES]
    for less, more in itertools.pairwise(budgets):
        assert all(getattr(less, c) < getattr(more, c) for c in ("usd", "tokens", "joules", "seconds"))
    configured = Settings.model_validate({"budget": {"usd": "0.5"}})
    assert effort_of("auto", configured).budget == Budget(usd=0.5)
    assert effort_of("auto", configured).depth == Depth()
    own = JobBudget(joules=5.0)
    assert limits_of(own, "pro", configured) == Budget(joules=5.0), "a limit of its own is its only one"


def test_breadth_never_outgrows_the_largest_context() -> None:
    configured = ResearchSettings()
    wide = Depth(breadth=3.0)
    assert wide.widened(configured, [None, 8_192]).most_passages == 48
    assert wide.widened(configured, [8_192, 32_768]).most_passages == 46
    assert wide.widened(configured, [8_192]).most_passages == configured.most_passages
    assert Depth(breadth=10.0).widened(configured, []).sub_questions == 12
    assert Depth(breadth=0.1).widened(configured, []).sub_questions == 1


def test_the_configuration_changes_any_of_it(here: Path) -> None:
    (here / "agentflow.toml").write_text(
        '[models.a]\nbackend = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nprice = { input = 1, output = 2 }\n'
        '[cascades.cheap]\nrungs = ["code"]\n'
        '[efforts.lite]\nusd = 0.01\ncascade = "cheap"\nbreadth = 0.5\n'
    )
    lite = next(one for one in efforts(load_settings()) if one.effort == "lite")
    assert (str(lite.budget.usd), lite.budget.tokens, lite.rungs, lite.sub_questions) == ("0.01", 50_000, ("code",), 2)
    said = run("efforts").stdout
    assert "lite  $0.01, 50,000 tokens, 40,000 J, 60 s\n      code; 2 sub-questions, 8 passages" in said
    assert [line.split()[0] for line in said.splitlines()[::2]] == list(get_args(Effort))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('[efforts.lite]\ncascade = "no-such"', "efforts.lite.cascade: 'no-such' is not a cascade; there are: default"),
        ("[efforts.auto]\nusd = 1", "efforts.auto"),
        ("[efforts.lite]\nbreadth = 0", "efforts.lite.breadth"),
        ("[efforts.lite]\nmodel_rungs = -1", "efforts.lite.model_rungs"),
    ],
)
def test_what_an_effort_cannot_be_is_told(here: Path, table: str, words: str) -> None:
    (here / "agentflow.toml").write_text(table)
    with pytest.raises(ConfigError) as raised:
        load_settings()
    assert words in str(raised.value)


def test_code_alone_is_an_effort_too(here: Path) -> None:
    (here / "agentflow.toml").write_text("[efforts.lite]\nmodel_rungs = 0\n")
    (here / "tides.txt").write_text("The tide in the Bay of Fundy rises by sixteen metres.")
    done = run("research", "How high does the tide rise?", "tides.txt", "--effort", "lite")
    assert done.returncode == 0 and "sixteen" in done.stdout
