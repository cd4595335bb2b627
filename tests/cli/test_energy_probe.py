from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agentflow.cli.energy import command
from agentflow.cli.energy.probe import Measurement, for_people
from agentflow.energy.probes import Absent, Counter, Reading, Sampler, Survey, Window
from tests.energy.probes.made import FACTS, ScriptedCounter, zone


def run(*words: str):
    return CliRunner().invoke(command, ["probe", "--seconds", "0.2", *words], catch_exceptions=False)


def test_without_counters_the_prior_serves_and_every_probe_says_why(tmp_path: Path):
    result = run("--powercap", str(tmp_path / "none"))
    assert result.exit_code == 0
    assert result.output.count("cpu-time") == 1
    assert "idle: not known" in result.output
    for name in ("rapl: there is no", "apple: ", "nvml: ", "amd: "):
        assert name in result.output
    assert "Together, idle power left out: " in result.output
    assert "modelled)" in result.output


def test_with_rapl_its_packages_are_shown_and_their_parts_are_not_added(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    result = run("--powercap", str(tmp_path))
    assert "The processor is measured by rapl/package-0." in result.output
    assert "rapl/package-0/core (beside or inside another; not added)" in result.output
    assert "cpu-time" not in result.output
    assert "Together: 0 J (0 J to " in result.output


def test_json_is_json_alone(tmp_path: Path):
    record = json.loads(run("--json", "--powercap", str(tmp_path / "none")).stdout)
    assert record["probes"][0]["counter"] == "cpu-time"
    assert record["probes"][0]["power_valid"] is True
    assert record["probes"][0]["idle_microjoules"] is None
    assert record["total"]["provenance"] == "modelled"
    assert {one["probe"] for one in record["absent"]} >= {"rapl", "apple"}
    assert all(one["why"] for one in record["absent"])


def measured(*readings: Reading | None) -> str:
    counter: Counter = ScriptedCounter(readings, FACTS)
    with Sampler([counter], period_s=600.0) as sampler:
        mark = sampler.mark()
        for _ in range(len(readings) - 3):
            sampler.mark()
        windows = sampler.since(mark)
    absent = Absent("rapl", "no_permission", "not readable: zone may be read by root alone.", "Run as root.")
    return click.unstyle(
        "\n".join(for_people(Measurement(Survey((), (absent,), "the processor is measured by made"), windows)))
    )


def test_a_counter_is_told_in_joules_watts_and_idle():
    looks = [Reading(round(joules * 1e6), at) for at, joules in ((0.0, 0.0), (0.0, 0.0), (1.0, 90.0), (2.0, 100.0))]
    text = measured(*looks)
    assert "made: 100 J in 2 s\n  50 W on average; 94.9 J to 105 J, measured" in text
    assert "idle: at most 10 W, the least of any second: 20 J of it, 80 J above" in text
    assert "Run as root." in text


def test_a_lost_counter_is_told_and_its_sum_is_not_known():
    text = measured(Reading(0, 0.0), Reading(0, 0.5), None)
    assert "made: no figure\n  the counter could no longer be read" in text
    assert "Together: not known" in text


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x"])
def test_seconds_that_are_none_are_refused(seconds: str):
    assert CliRunner().invoke(command, ["probe", "--seconds", seconds]).exit_code == 2


def test_a_counter_and_its_polled_power_are_compared():
    whole = Window(replace(FACTS, name="nvml/0"), 10.0, 1_000_000_000, "ok")
    polled = Window(replace(FACTS, name="nvml/0/polled", counted=False), 10.0, 1_200_000_000, "ok")
    text = "\n".join(for_people(Measurement(Survey((), (), "the board is measured"), (whole, polled))))
    assert "nvml/0: its polled power says +20.0% (over 5 %" in text
    assert "Together: 1 kJ" in text
