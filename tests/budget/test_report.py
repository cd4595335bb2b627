"""Reports: figures a calculator gives, and totals that do not depend on the grouping."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budget.ledger import Entry, Labels
from agentflow.budget.ledger.base import State
from agentflow.budget.report import GROUPS, GroupBy, latency, spend_report
from agentflow.budget.report_formats import to_csv, to_json
from agentflow.budget.spend import Emissions, Quote, Spend
from agentflow.energy.interval import Energy
from agentflow.errors import UsageError
from agentflow.messages import TokenUsage

DAY_MS = 86_400_000


def entry(
    key: str = "a", *, model: str = "m", tokens: tuple[int, int, int] = (900, 100, 450), nano_usd: int = 5_000_000,
    joules: float = 360.0, seconds: float = 2.0, first: float | None = 0.5, score: float | None = None,
    state: State = "settled", replays: int = 0, **labels: str,
) -> Entry:  # fmt: skip
    prompt, reply, cached = tokens
    spend = Spend(1, TokenUsage(prompt, reply, cached, source="provider"), nano_usd,
                  Energy(joules, joules / 2, joules * 2, "modelled"), seconds, co2e=Emissions(10, 5, 20))  # fmt: skip
    return Entry(
        key, "n", Quote(2_000, 9_000_000, 900_000_000), ("n",), Labels(model=model, kind="model", **labels),
        state, "r", 1, DAY_MS, DAY_MS + 1, None if state in ("held", "released") else spend, first, None, "accepted",
        score, replays,
    )  # fmt: skip


def test_the_figures_are_those_of_a_calculator() -> None:
    entries = [
        entry("a", score=0.9),
        entry("b", tokens=(1_800, 200, 0), nano_usd=10_000_000, joules=720.0, seconds=4.0, first=1.0, score=0.5),
        entry("c", state="held"),
        entry("d", state="released"),
        entry("e", state="in_doubt", tokens=(0, 0, 0), nano_usd=0, joules=0.0),
    ]
    total = spend_report(entries).total
    assert (total.spent.tokens, total.spent.nano_usd, total.spent.calls) == (3_000, 15_000_000, 3)
    assert total.nano_usd_per_million_tokens == 5_000_000_000
    assert total.kwh_per_million_tokens == pytest.approx(1_080 / 3.6e6 / 3_000 * 1e6)
    assert total.cache_hits == pytest.approx(450 / 2_700)
    assert total.held == (2_000, 9_000_000, 900_000_000, 0, 1)
    assert total.attempts == {"settled": 2, "held": 1, "released": 1, "in_doubt": 1}
    assert total.first_token is not None and (total.first_token.p50, total.first_token.p99) == (0.5, 1.0)
    assert total.whole_call is not None and (total.whole_call.p50, total.whole_call.p95) == (2.0, 4.0)
    assert total.quality is not None
    assert (total.quality.scored, total.quality.mean_score, total.quality.mean_joules) == (2, pytest.approx(0.7), 540.0)
    assert total.quality.per_joule == pytest.approx(0.7 / 540)


def test_percentiles_are_durations_that_were_seen() -> None:
    found = latency(float(number) for number in range(1, 201))
    assert found is not None and (found.p50, found.p95, found.p99, found.replies) == (100.0, 190.0, 198.0, 200)
    assert latency([]) is None


def test_what_is_not_known_is_absent_and_never_zero() -> None:
    line = spend_report([]).total
    assert (line.cache_hits, line.nano_usd_per_million_tokens, line.kwh_per_million_tokens) == (None, None, None)
    assert (line.first_token, line.whole_call, line.quality) == (None, None, None)
    report = spend_report([entry(first=None)], "model")
    assert to_json(report)["total"]["first_token_seconds"]["p50"] is None
    row = next(csv.DictReader(io.StringIO(to_csv(report))))
    assert row["first_token_seconds_p50"] == "" and row["quality_per_joule"] == ""


def test_groups_are_dearest_first_and_periods_in_their_order() -> None:
    entries = [entry("a", model="cheap", nano_usd=1), entry("b", model="dear", nano_usd=9)]
    assert [line.group for line in spend_report(entries, "model").lines] == ["dear", "cheap"]
    assert [line.group for line in spend_report(entries, "day").lines] == ["1970-01-02"]
    assert [line.group for line in spend_report([entry(model="", job="j")], "model").lines] == [""]
    with pytest.raises(UsageError, match="cannot be grouped by 'colour'"):
        spend_report([], "colour")  # type: ignore[arg-type]


entries_strategy = st.lists(
    st.builds(
        entry,
        key=st.uuids().map(str),
        model=st.sampled_from(["m", "n", ""]),
        tokens=st.tuples(st.integers(10, 10**6), st.integers(0, 10**6), st.integers(0, 10)),
        nano_usd=st.integers(0, 10**12),
        joules=st.integers(0, 10**9).map(lambda micro: micro / 1e6),
        state=st.sampled_from(["settled", "in_doubt", "held", "released", "reconciled"]),
        replays=st.integers(0, 3),
        job=st.sampled_from(["", "j1", "j2"]),
        tenant=st.sampled_from(["", "acme"]),
        score=st.none() | st.floats(0, 1),
    ),
    max_size=12,
)


@given(entries_strategy, st.sampled_from(GROUPS), st.randoms())
def test_every_grouping_adds_up_to_the_same_total(entries: list[Entry], by: GroupBy, random: object) -> None:
    whole = spend_report(entries).total
    random.shuffle(entries)  # type: ignore[attr-defined]
    report = spend_report(entries, by)
    assert report.total.spent.amounts == whole.spent.amounts
    for place in range(5):
        assert sum(line.spent.amounts[place] for line in report.lines) == whole.spent.amounts[place]
        assert sum(line.held[place] for line in report.lines) == whole.held[place]
    assert sum(line.replays for line in report.lines) == whole.replays
    assert report.total.quality == whole.quality
    json.dumps(to_json(report))


def test_a_name_that_a_spreadsheet_would_run_is_defused() -> None:
    text = to_csv(spend_report([entry(model='=HYPERLINK("http://x")'), entry("b", model="plain")], "model"))
    cells = [row[0] for row in csv.reader(io.StringIO(text))]
    assert cells == ["model", '\'=HYPERLINK("http://x")', "plain"]


@pytest.mark.parametrize(("ending", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
@pytest.mark.parametrize("groups", [0, 1, 60])
def test_a_plot_is_drawn_of_nothing_of_one_and_of_many(tmp_path: Path, ending: str, magic: bytes, groups: int) -> None:
    pytest.importorskip("matplotlib")
    from agentflow.budget.plots import plot_report

    entries = [entry(str(n), model=f"model {n} $x$ \x1b[31m", nano_usd=n * 10**7) for n in range(groups)]
    path = tmp_path / f"plot{ending}"
    plot_report(spend_report(entries, "model"), path)
    drawn = path.read_bytes()
    assert drawn.startswith(magic)
    if ending == ".svg" and groups == 60:
        assert b"40 of 60" in drawn or b"glyph" in drawn


def test_a_plot_that_cannot_be_written_is_told_before_anything_is_read(tmp_path: Path) -> None:
    from agentflow.budget.plots import check_plot

    for path, words in ((tmp_path / "x.bmp", "drawn as .png or .svg"), (tmp_path / "no" / "x.png", "no such folder")):
        with pytest.raises(UsageError, match=words):
            check_plot(path)
