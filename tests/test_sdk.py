"""The public face as an app builder uses it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

import agentflow
from agentflow import Budget, Flow, Settings
from agentflow.errors import SourceError, UnknownModel, UnpricedModel, UsageError
from tests.conftest import PROJECT, RUNGS
from tests.servers.openai_server import ScriptedServer


class Triage(BaseModel):
    ticket: str
    urgent: bool


def model(server: ScriptedServer, **more: object) -> dict[str, object]:
    priced = {"price": {"input": 1, "output": 2}, "energy": {"kind": "remote"}}
    return {"backend": "openai", "base_url": server.url, "retries": 0, **priced, **more}


async def test_a_chain_answers_with_the_type_that_was_asked_for(scripted_server: ScriptedServer, here: Path) -> None:
    scripted_server.script({"small": [{"json": {"ticket": "T1", "urgent": True}}]})
    async with Flow(Settings(models={"small": model(scripted_server)})) as flow:  # type: ignore[dict-item]
        async with flow.chain("triage", budget=Budget(usd=0.01, joules=50_000, tokens=8_000, seconds=20)) as chain:
            reply = await chain.call("Which of these tickets is urgent?", output=Triage)
            assert reply.output == Triage(ticket="T1", urgent=True)
            assert reply.rung == "small"
            assert chain.spend.tokens > 0


async def test_chains_of_one_name_outside_a_job_are_each_their_own(scripted_server: ScriptedServer, here: Path) -> None:
    async with Flow(Settings(models={"small": model(scripted_server)})) as flow:  # type: ignore[dict-item]
        for _ in range(2):
            async with flow.chain("triage") as chain:
                await chain.call("Which one?")
                assert chain.spend.calls == 1
    assert len(scripted_server.requests()) == 2


async def test_a_real_cascade_of_local_models_climbs_on_its_own_confidence(here: Path) -> None:
    rungs = {
        name: {
            "backend": "llamacpp",
            "path": RUNGS / f"{name}.gguf",
            "context": 256,
            "logprobs": True,
            "default_output": 8,
        }
        for name in ("small", "medium", "large")
    }
    async with Flow(Settings(models=rungs)) as flow:  # type: ignore[arg-type]
        served: dict[str, str] = {}
        async with flow.chain("sums", budget=Budget(seconds=60)) as chain:
            for question in ("3+4", "123+456", "12+7"):
                reply = await chain.call(question, checks=(agentflow.token_confidence,))
                served[question] = reply.rung
                assert reply.confidence is not None
            assert served["3+4"] == "small"
            assert served["12+7"] != "small"
            assert chain.spend.nano_usd == 0
            assert chain.spend.energy.high > chain.spend.energy.low > 0


async def test_research_returns_a_report_and_keeps_it(here: Path) -> None:
    (here / "tides.md").write_text("# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres.\n")
    async with Flow.from_config() as flow:
        question = "How high does the tide in the Bay of Fundy rise?"
        report = await flow.research(question, ["tides.md"], budget=Budget(usd=1))
        assert report.answered
        assert flow.runs.find(report.job).report() == report
        with pytest.raises(UsageError, match="empty"):
            await flow.research(" ", ["tides.md"])
        with pytest.raises(SourceError, match="does not exist"):
            await flow.research("What?", ["none.md"])


async def test_an_unpriced_and_an_unknown_model_are_refused(scripted_server: ScriptedServer, here: Path) -> None:
    async with Flow(Settings(models={"mine": model(scripted_server, price=None)})) as flow:  # type: ignore[dict-item]
        with pytest.raises(UnpricedModel, match="No price is known for model 'mine'"):
            flow.chain("x")
        with pytest.raises(UnknownModel, match="there are: mine"):
            flow.runtime.rung("yours")


def test_a_price_given_for_one_table_prices_no_other(here: Path) -> None:
    own = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "price": {"input": 0, "output": 0}}
    remote = {"backend": "litellm", "model": "gpt-4o"}
    flow = Flow(Settings.model_validate({"models": {"gpt-4o": own, "big": remote}}))
    assert flow.runtime.rung("gpt-4o").price.rates.input == 0
    assert flow.runtime.rung("big").price.rates.input == 2_500_000_000


def test_the_public_names_are_these_and_each_can_be_had() -> None:
    expected = """Agent AgentflowError ApiError AsyncClient Attempt Budget BudgetExceeded CallFailed Candidate
        Cascade Chain Check Citation Claim Client ConfigError EffectInDoubt Energy Flow Image JobBudget JobContext
        JobEvent JobHandle JobOutput JobResult JobSpec JobState JobView LedgerError Message NotDone NotServed Reply
        Report Request Reuse Scope Settings SourceError Spend Statistical StopReason TokenUsage UnpricedModel
        UnprofiledModel UsageError Verdict __version__ read_image token_confidence"""
    assert agentflow.__all__ == expected.split()
    for name in agentflow.__all__:
        assert getattr(agentflow, name) is not None
    with pytest.raises(AttributeError):
        _ = agentflow.nothing  # type: ignore[attr-defined]


def test_importing_agentflow_imports_no_heavy_library() -> None:
    code = "import agentflow, agentflow.cli.main, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"litellm", "pydantic", "numpy", "aiohttp", "rich", "trafilatura", "xllamacpp", "tiktoken", "bm25s"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "more"),
    [("cli.keys", "fastapi yaml numpy aiohttp"), ("cli.jobs.opened", "fastapi yaml numpy aiohttp"), ("server.app", "")],
)
def test_commands_import_no_library_that_they_do_not_need(module: str, more: str) -> None:
    code = f"import agentflow.{module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unneeded = {"dbos", "litellm", "trafilatura", "xllamacpp", "docx", "pypdf", "boto3", *more.split()}
    assert not unneeded & set(done.stdout.split())


@pytest.mark.parametrize("page", ["README.md", "docs/sdk.md", "docs/jobs.md"])
def test_code_in_the_documentation_runs(page: str, here: Path, scripted_server: ScriptedServer) -> None:
    scripted_server.script({"*": [{"json": {"ticket": "T1", "urgent": True}}]})
    (here / "docs").symlink_to(PROJECT / "docs")
    (here / "README.md").symlink_to(PROJECT / "README.md")
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)
        if "async def triage" in block:
            (here / "agentflow.toml").write_text(
                f'[models.small]\nbackend = "openai"\nbase_url = "{scripted_server.url}"\ndefault_output = 30\n'
                'price = { input = 1, output = 2 }\nenergy = { kind = "remote" }\n'
            )
            block += "\nimport asyncio\nassert asyncio.run(triage('T1: it burns')).urgent\n"
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
