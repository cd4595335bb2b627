"""Drawing a report: dollars, joules and latency of each group, as PNG or SVG. Imports report; matplotlib when it draws.

Figures are made one by one, without pyplot and what it keeps for the whole process.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentflow.budget.money import NANO, format_usd
from agentflow.budget.report import PERIODS, ReportLine, SpendReport
from agentflow.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ENDINGS: Final = (".png", ".svg")
# More bars than this cannot be told apart.
_MOST: Final = 40
_LONGEST_NAME: Final = 36
_BAR, _WHISKER = "#3b6ea5", "#24384f"
_UNITS: Final = ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ"), (1.0, "J"))


def check_plot(path: Path) -> None:
    """Make sure, before anything is read, that a report can be drawn into this file.

    Raises:
        UsageError: it ends neither in .png nor in .svg, its folder does not exist, or matplotlib is not installed.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"A plot is drawn as {' or '.join(_ENDINGS)}, not as '{path.name}'. Name the file so.")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"The plot cannot be written to {path}: there is no such folder, or it is one itself.")
    _figure()


def plot_report(report: SpendReport, path: Path) -> None:
    """Draw what each group spent and how fast its replies came; a file that is there is replaced.

    A panel of which nothing is known is left out. Of more than 40 groups, the dearest (of periods, the latest) are
    drawn, and the title says how many there are.

    Args:
        report: the report.
        path: the file, whose ending says what it is.

    Raises:
        UsageError: as ``check_plot``, or the file cannot be written.
    """
    check_plot(path)
    lines = report.lines[-_MOST:] if report.by in PERIODS else report.lines[:_MOST]
    panels = _panels(lines)
    figure = _figure()(figsize=(4.2 * len(panels) + 2.4, 0.3 * max(len(lines), 3) + 1.6), layout="constrained")
    shown = f"{len(lines)} of {len(report.lines)}" if len(lines) < len(report.lines) else str(len(lines))
    total = report.total.spent
    figure.suptitle(
        f"Spend by {report.by} ({shown}): {format_usd(total.nano_usd)}, {total.calls:,} calls", parse_math=False
    )
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, draw in zip(axes, panels, strict=True):
        draw(axis, lines)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(lines)), [_name(line) for line in lines], parse_math=False)
    axes[0].set_ylim(len(lines) - 0.4, -0.6)
    _write(figure, path)


def _panels(lines: Sequence[ReportLine]) -> list[Callable[[Axes, Sequence[ReportLine]], None]]:
    """Those of which something is known; dollars always are."""
    panels = [_dollars]
    if any(line.joules is not None and line.joules.high > 0.0 for line in lines):
        panels.append(_joules)
    if any(line.whole_call is not None for line in lines):
        panels.append(_latency)
    return panels


def _dollars(axis: Axes, lines: Sequence[ReportLine]) -> None:
    axis.barh(range(len(lines)), [line.spent.nano_usd / NANO for line in lines], color=_BAR)
    for place, line in enumerate(lines):
        axis.annotate(
            format_usd(line.spent.nano_usd), (line.spent.nano_usd / NANO, place), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize="small", parse_math=False,
        )  # fmt: skip
    # Room for the figures at the ends of the bars; an axis of its own where all is free.
    most = max((line.spent.nano_usd for line in lines), default=0) / NANO
    axis.set_xlim(0.0, most * 1.25 or 1.0)
    axis.set_xlabel("dollars")


def _joules(axis: Axes, lines: Sequence[ReportLine]) -> None:
    known = [(place, line.joules) for place, line in enumerate(lines) if line.joules is not None]
    most = max(joules.high for _, joules in known)
    factor, unit = next((scale for scale in _UNITS if most >= scale[0]), _UNITS[-1])
    means = [joules.mean / factor for _, joules in known]
    below = [(joules.mean - joules.low) / factor for _, joules in known]
    above = [(joules.high - joules.mean) / factor for _, joules in known]
    axis.barh(
        [place for place, _ in known], means, xerr=[below, above], color=_BAR,
        error_kw={"ecolor": _WHISKER, "elinewidth": 1.0, "capsize": 2.0},
    )  # fmt: skip
    axis.set_xlim(left=0.0)
    axis.set_xlabel(f"{unit} (mean, 90 % interval)")


def _latency(axis: Axes, lines: Sequence[ReportLine]) -> None:
    timed = [(place, line.whole_call) for place, line in enumerate(lines) if line.whole_call is not None]
    places = [place for place, _ in timed]
    axis.hlines(places, [call.p50 for _, call in timed], [call.p99 for _, call in timed], color="0.7", zorder=1)
    series = (
        ("o", "call p50", [call.p50 for _, call in timed]),
        ("d", "call p95", [call.p95 for _, call in timed]),
        ("|", "call p99", [call.p99 for _, call in timed]),
    )
    for marker, label, seconds in series:
        axis.scatter(seconds, places, marker=marker, color=_BAR, label=label, zorder=2)
    first = [(line.first_token.p50, place) for place, line in enumerate(lines) if line.first_token is not None]
    if first:
        axis.scatter(
            [seconds for seconds, _ in first], [place for _, place in first], marker="o", facecolor="white",
            edgecolor=_BAR, label="first token p50", zorder=2,
        )  # fmt: skip
    axis.set_xlim(left=0.0)
    axis.set_xlabel("seconds")
    axis.legend(fontsize="small", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False,
                columnspacing=0.8, handletextpad=0.1)  # fmt: skip


def _name(line: ReportLine) -> str:
    """A group as a picture may show it: in one line of bounded length, without control characters."""
    name = "".join(letter if letter.isprintable() else "?" for letter in line.group) or "(none)"
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _figure() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("Plots need matplotlib. Install it with: pip install 'agentflow[plots]'.") from error
    return Figure


def _write(figure: Figure, path: Path) -> None:
    """Drawn in memory first, so that a file that is there is not lost to a drawing that fails."""
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which says enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(drawn, format=path.suffix.lower().removeprefix("."), dpi=150)
    try:
        path.write_bytes(drawn.getvalue())
    except OSError as error:
        raise UsageError(f"The plot cannot be written to {path}: {error.strerror}. Name another place.") from error
