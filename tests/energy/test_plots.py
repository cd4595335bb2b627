"""That the pictures have their axes, units, points and legends; how they look was looked at."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentflow.cli.energy import command
from agentflow.cli.energy.plot import stages
from agentflow.energy import Energy
from agentflow.energy.estimate import Range
from agentflow.energy.plots import Band, Points, joules_by_batch, joules_by_stage
from agentflow.errors import ConfigError
from tests.research.rendering.samples import report

BAND = Band([1, 8, 64], [Range(2, 4, 8), Range(0.3, 0.6, 1.2), Range(0.1, 0.2, 0.4)])


def texts(path: Path) -> list[str]:
    """Everything written in a picture: matplotlib notes each text beside its outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text("utf-8"))


@pytest.fixture(autouse=True)
def _matplotlib() -> None:
    pytest.importorskip("matplotlib")


def test_joules_against_batch_have_units_points_and_a_legend_for_each(tmp_path: Path):
    path = tmp_path / "batch.svg"
    series = [Points([1, 64], [3.5, 0.2], "measured, H100"), Points([8], [0.7], "measured, cost in $ or $$")]
    joules_by_batch(path, BAND, series, title="Llama on one H100")
    written = texts(path)
    for text in ("energy per output token (J, board)", "batch (sequences decoded together)", "Llama on one H100"):
        assert text in written
    for label in ("model, 90 % interval", "model, mean", "measured, H100", "measured, cost in $ or $$"):
        assert label in " ".join(written).replace("\\$", "$")
    assert {"1", "2", "4", "8", "16", "32", "64", "0.1"} <= set(written)


def test_joules_by_stage_are_named_and_figured_and_zero_is_said(tmp_path: Path):
    path = tmp_path / "stages.svg"
    energies = {
        "planning": Energy(0.02, 0.005, 0.09, "modelled", "board"),
        "synthesis": Energy(3400.0, 0.0, 8000.0, "reported"),
        "retrieval": Energy(850.0, 800.0, 900.0, "measured"),
        "nothing": Energy(),
    }
    joules_by_stage(path, energies, title="job 1")
    written = texts(path)
    for text in ("planning", "20 mJ", "3.4 kJ", "850 J", "0 J", "modelled", "reported by the provider"):
        assert text in written
    assert "energy: mean, with its 90 % interval" in written


@pytest.mark.parametrize("ending", ["png", "pdf", "SVG"])
def test_pictures_come_in_three_kinds(tmp_path: Path, ending: str):
    path = tmp_path / f"picture.{ending}"
    joules_by_stage(path, {"a": Energy(), "b" * 500: Energy(1, 1, 1)}, title="t" * 500)
    assert path.stat().st_size > 2_000


def test_the_stages_of_a_report_are_the_parts_of_its_bill():
    made, _ = report()
    assert list(stages(made)) == [part.node for part in made.meter.parts] != []


@pytest.mark.parametrize(
    ("band", "points", "words"),
    [
        (Band([], []), (), "0 batches"),
        (Band([1, 2], [Range(1, 1, 1)]), (), "2 batches and 1 figures"),
        (Band([1], [Range(0, 1, 2)]), (), "not above 0"),
        (BAND, [Points([1], [math.nan])], "not above 0"),
        (BAND, [Points([0], [1.0])], "not above 0"),
    ],
)
def test_figures_that_cannot_be_drawn_are_refused(tmp_path: Path, band: Band, points: list[Points], words: str):
    with pytest.raises(ConfigError, match=words):
        joules_by_batch(tmp_path / "a.svg", band, points, title="t")
    assert not (tmp_path / "a.svg").exists()


def test_a_job_without_stages_a_name_without_a_kind_and_a_place_that_is_none_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no stages"):
        joules_by_stage(tmp_path / "a.svg", {}, title="t")
    for name, words in (("a.xyz", "ends in .svg"), ("none/a.svg", "cannot be written")):
        with pytest.raises(ConfigError, match=words):
            joules_by_stage(tmp_path / name, {"a": Energy(1, 1, 1)}, title="t")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"agentflow\[plots\]"):
        joules_by_stage(tmp_path / "a.svg", {"a": Energy(1, 1, 1)}, title="t")


def test_the_command_draws_a_run(here: Path):
    made, _ = report()
    folder = here / ".agentflow" / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(made.model_dump_json())
    result = CliRunner().invoke(command, ["plot", "one", "--out", "joules.svg"], catch_exceptions=False)
    assert result.output == "Wrote joules.svg.\n"
    assert f"Joules by stage of job {made.job}" in texts(here / "joules.svg")
