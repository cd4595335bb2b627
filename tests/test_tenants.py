"""Tenants: budgets that last longer than a job, over all its jobs and processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow import Budget, BudgetExceeded, Flow, Settings, UsageError
from agentflow.budget.ledger import EntryFilter
from agentflow.errors import ConfigError
from tests.servers.openai_server import ScriptedServer


def settings(server: ScriptedServer, tokens: int = 400, **more: object) -> Settings:
    model = {"backend": "openai", "base_url": server.url, "price": {"input": 1, "output": 2}, "retries": 0,
             "default_output": 100}  # fmt: skip
    return Settings.model_validate(
        {"models": {"small": model}, "tenants": {"acme": {"day": {"tokens": tokens}, "total": {"calls": 50}}}, **more}
    )


async def spend(flow: Flow, name: str) -> int:
    async with await flow.tenant_chain("acme", name) as chain:
        calls = 0
        try:
            for number in range(50):
                await chain.call(f"Question {number}?")
                calls += 1
        except BudgetExceeded as refused:
            assert "acme@" in str(refused)
        return calls


async def test_a_tenants_day_holds_over_chains_and_processes(scripted_server: ScriptedServer, here: Path) -> None:
    scripted_server.script({"*": [{"text": "y", "usage": {"prompt_tokens": 20, "completion_tokens": 30}}]})
    calls = 0
    for name in ("one", "two"):
        # A flow of its own, as a second process would have: only the ledger remembers the first.
        async with Flow(settings(scripted_server)) as flow:
            calls += await spend(flow, name)
            tenant = await flow.runtime.tenant("acme")
            assert tenant.children == [], "a tenant keeps what its chains spent, not their nodes"
    assert 0 < calls * 50 <= 400
    assert len(scripted_server.requests()) == calls
    async with Flow(settings(scripted_server)) as flow:
        (day,) = [state for state in await flow.runtime.ledger.accounts() if "@" in state.account.id]
        assert day.account.spent[0] == calls * 50
        assert {entry.labels.tenant for entry in await flow.runtime.ledger.entries()} == {"acme"}


async def test_limits_changed_in_the_configuration_hold_at_once(scripted_server: ScriptedServer, here: Path) -> None:
    scripted_server.script({"*": [{"text": "y", "usage": {"prompt_tokens": 20, "completion_tokens": 30}}]})
    async with Flow(settings(scripted_server, 400)) as flow:
        before = await spend(flow, "one")
    async with Flow(settings(scripted_server, 800)) as flow:
        assert await spend(flow, "one") >= before


async def test_a_job_is_its_tenants_and_its_entries_say_so(scripted_server: ScriptedServer, here: Path) -> None:
    (here / "tides.md").write_text("# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres.\n")
    async with Flow(Settings.model_validate({"tenants": {"acme": {"month": {"calls": 1_000}}}})) as flow:
        report = await flow.research("How high is the tide in the Bay of Fundy?", ["tides.md"], tenant="acme")
        entries = await flow.runtime.ledger.entries(EntryFilter(tenant="acme", job=report.job))
        assert len(entries) == report.meter.total.calls > 0
        assert {entry.labels.agent for entry in entries} >= {"planner", "retrieval", "synthesis"}
        assert sum(entry.spend.microjoules for entry in entries if entry.spend is not None) == pytest.approx(
            report.meter.total.joules.mean * 1e6, abs=1
        )
        assert (await flow.runtime.tenant("acme")).spent.calls == len(entries)


async def test_an_unknown_tenant_is_told(scripted_server: ScriptedServer, here: Path) -> None:
    async with Flow(settings(scripted_server)) as flow:
        with pytest.raises(UsageError, match=r"No tenant is called 'ghost'; there are: acme. Add \[tenants.ghost\]"):
            await flow.tenant_chain("ghost", "x")


async def test_a_bare_chain_leaves_no_file(scripted_server: ScriptedServer, here: Path) -> None:
    async with Flow(settings(scripted_server)) as flow:
        async with flow.chain("bare", budget=Budget(usd=1)) as chain:
            await chain.call("What?")
    assert list(here.iterdir()) == []


async def test_chains_of_one_name_do_not_share_an_account_in_a_ledger_for_everything(
    scripted_server: ScriptedServer, here: Path
) -> None:
    async with Flow(settings(scripted_server, ledger={"kind": "sqlite"})) as flow:
        for _ in range(3):
            async with flow.chain("triage", budget=Budget(calls=1)) as chain:
                await chain.call("Which one?")
    assert (here / ".agentflow" / "ledger.db").is_file()


async def test_postgres_by_the_name_of_a_variable(
    scripted_server: ScriptedServer, here: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = {"kind": "postgres", "url_env": "LEDGER_URL"}
    with pytest.raises(ConfigError, match="LEDGER_URL is not set"):
        _ = Flow(settings(scripted_server, ledger=ledger)).runtime.ledger
    monkeypatch.setenv("LEDGER_URL", postgres_url)
    async with Flow(settings(scripted_server, ledger=ledger)) as flow:
        assert await spend(flow, "one") > 0
        assert await flow.runtime.ledger.audit() == []  # type: ignore[attr-defined]


async def test_a_model_of_unknown_hardware_needs_a_word_where_joules_are_limited(
    scripted_server: ScriptedServer, here: Path
) -> None:
    from agentflow import UnprofiledModel

    async with Flow(settings(scripted_server)) as flow:
        flow.chain("free of joules", budget=Budget(usd=1))
        for limits in (Budget(joules=500), Budget(grams_co2e=5)):
            with pytest.raises(UnprofiledModel, match=r"models.small.energy.*kind = \"remote\""):
                flow.chain("limited", budget=limits)
