"""Estimates: no call is made, limits bound them, and their error is measured against jobs that ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentflow.config import Settings
from agentflow.jobs.job import JobSpec
from agentflow.runtime import Runtime
from agentflow.server.research.estimating import Figures, Material, Past, error_of, expected
from tests.servers.openai_server import ScriptedServer


def same(figure: float) -> Figures:
    return (figure, figure, figure, figure)


def runtime(server: ScriptedServer | None) -> Runtime:
    if server is None:
        return Runtime(Settings())
    model = {"backend": "openai", "base_url": server.url, "price": {"input": 1, "output": 2}, "retries": 0}
    return Runtime(Settings.model_validate({"models": {"small": model, "large": model}}))


async def test_what_is_expected_rests_on_the_rungs_and_asks_none(scripted_server: ScriptedServer, here: Path) -> None:
    asked = runtime(scripted_server)
    least, most = expected(asked, JobSpec(query="Why?"), Material(100_000, 100_000))
    assert all(0 < low < high for low, high in zip(least, most, strict=True))
    assert scripted_server.requests() == []
    await asked.aclose()


async def test_what_is_asked_changes_what_is_expected(scripted_server: ScriptedServer, here: Path) -> None:
    asked = runtime(scripted_server)

    def tokens(material: int = 1_000_000, **more: Any) -> tuple[float, float]:
        least, most = expected(asked, JobSpec(query="Why?", **more), Material(material, material))
        return least[0], most[0]

    lite, core, pro, ultra = (tokens(effort=effort) for effort in ("lite", "core", "pro", "ultra"))
    assert tokens() == core, "auto is the configuration"
    assert lite[0] == core[0] < pro[0] < ultra[0], "the same first model, over more passages"
    assert lite[1] == core[1] / 2 and core[1] < pro[1] < ultra[1], "one model of two"
    assert tokens(100)[0] < tokens(10_000)[0] < core[0], "short sources fill no passages"
    assert core[0] < tokens(previous="an-earlier-job")[0], "what that found is told twice"
    joules = [expected(asked, JobSpec(query="Why?"), Material(material, material))[0][2] for material in (10**6, 10**7)]
    assert joules[0] < joules[1], "more is read"
    await asked.aclose()


async def test_code_alone_costs_joules_and_seconds_only(here: Path) -> None:
    asked = runtime(None)
    (tokens, usd, joules, seconds), _ = expected(asked, JobSpec(query="Why?"), Material(100_000, 100_000))
    assert tokens == usd == 0 and joules > 0 and seconds > 0
    await asked.aclose()


def test_jobs_that_always_cost_a_fifth_are_estimated_exactly() -> None:
    past = [Past((100.0 * n, 1.0, 1.0, 1.0), (20.0 * n, 0.2, 0.2, 0.2)) for n in range(1, 8)]
    assert (error_of(past).median, error_of(past).within_p90) == (pytest.approx(0.0), 1.0)


def test_the_error_grows_with_what_cannot_be_foreseen() -> None:
    steady = [Past(same(100.0), same(50.0 + n)) for n in range(10)]
    wild = [Past(same(100.0), same(2.0**n)) for n in range(10)]
    assert error_of(steady).median < 0.1 < error_of(wild).median
    assert error_of(wild).within_p90 < 1.0
