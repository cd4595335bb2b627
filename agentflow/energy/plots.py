"""Pictures of joules (extra ``plots``): per token against the batch, and by stage of a job.

The functions take figures, not models, so that anybody's can be drawn. matplotlib is imported here alone, on first use,
without its global state. May import interval, estimate, errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentflow.energy.estimate import Range
from agentflow.energy.interval import Energy, Provenance, format_joules
from agentflow.errors import ConfigError

# Colours that stay apart for colour-blind readers and in grey (Okabe and Ito), with a marker each.
_SERIES = (("#D55E00", "o"), ("#009E73", "s"), ("#CC79A7", "^"), ("#E69F00", "D"), ("#56B4E9", "v"), ("#000000", "x"))
_BAND = "#0072B2"
_LABELS: dict[Provenance, tuple[str, str, str]] = {
    "measured": ("#009E73", "o", "measured by a counter"),
    "reported": ("#E69F00", "s", "reported by the provider"),
    "modelled": (_BAND, "D", "modelled"),
}
_WIDTH_IN = 7.5
_ENDINGS = (".svg", ".png", ".pdf")
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Band:
    """What a model says over batches.

    Args:
        batches: sequences decoded together, rising.
        joules: per output token at each of them, with the ends of the interval.
        label: for the legend.
    """

    batches: Sequence[float]
    joules: Sequence[Range]
    label: str = "model, 90 % interval"


@dataclass(frozen=True, slots=True)
class Points:
    """What was measured.

    Args:
        batches: sequences decoded together, in any order.
        joules: per output token at each of them.
        label: for the legend.
    """

    batches: Sequence[float]
    joules: Sequence[float]
    label: str = "measured"


def joules_by_batch(path: Path, band: Band, points: Sequence[Points] = (), *, title: str, scope: str = "board") -> None:
    """Draw joules per output token against the batch, measured points over the model's band, both axes by powers.

    Args:
        path: where to; the ending (.svg, .png, .pdf) says what.
        band: the model's.
        points: what was measured, a series each.
        title: what model on what hardware.
        scope: whose joules: of the boards, the server or the facility.

    Raises:
        ConfigError: a series has figures that cannot be drawn (none, not above 0, of different numbers), matplotlib is
            not installed, or the file cannot be written.
    """
    _drawable(band.label, band.batches, [end for r in band.joules for end in (r.low, r.mean, r.high)], each=3)
    for series in points:
        _drawable(series.label, series.batches, series.joules, each=1)
    figure, axes = _canvas(4.8)
    low, mean, high = ([getattr(r, end) for r in band.joules] for end in ("low", "mean", "high"))
    axes.fill_between(band.batches, low, high, color=_BAND, alpha=0.18, linewidth=0, label=_plain(band.label))
    axes.plot(band.batches, mean, color=_BAND, linewidth=1.6, label="model, mean")
    for number, series in enumerate(points):
        colour, marker = _SERIES[number % len(_SERIES)]
        axes.plot(
            series.batches,
            series.joules,
            linestyle="",
            marker=marker,
            markersize=5,
            color=colour,
            label=_plain(series.label),
        )
    axes.set(xscale="log", yscale="log", title=_plain(title))
    axes.set_xlabel("batch (sequences decoded together)")
    axes.set_ylabel(f"energy per output token (J, {scope})")
    _plain_ticks(axes.xaxis, base=2.0, subs=(1.0,))
    _plain_ticks(axes.yaxis)
    axes.grid(visible=True, which="major", alpha=0.3)
    # Below the axes, so that it lies over no point.
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    _save(figure, path)


def joules_by_stage(path: Path, stages: Mapping[str, Energy], *, title: str) -> None:
    """Draw the joules of each stage of a job: a dot for the mean, a line for the interval, on a scale by powers.

    Args:
        path: where to; the ending (.svg, .png, .pdf) says what.
        stages: by name, first on top. A stage that used nothing is listed with 0 J.
        title: which job.

    Raises:
        ConfigError: there are no stages, matplotlib is not installed, or the file cannot be written.
    """
    if not stages:
        raise ConfigError("There are no stages to draw: the job ended before its first.")
    names = list(stages)
    figure, axes = _canvas(1.9 + 0.42 * len(names))
    left, right = _span([stages[name] for name in names])
    for place, name in enumerate(names):
        energy = stages[name]
        colour, marker, _ = _LABELS[energy.provenance]
        if energy.mean > 0:
            axes.plot([max(energy.low, left), energy.high], [place, place], color=colour, linewidth=3, alpha=0.35)
            axes.plot([energy.mean], [place], marker=marker, markersize=7, color=colour)
        # The figure stands clear of its own line, at the right end of it.
        end = energy.high if energy.mean > 0 else left
        axes.annotate(
            format_joules(energy.mean), (end, place), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9
        )
    used = {energy.provenance for energy in stages.values() if energy.mean > 0}
    for provenance, (colour, marker, label) in _LABELS.items():
        if provenance not in used:
            continue
        axes.plot([], [], color=colour, marker=marker, markersize=7, linewidth=3, alpha=0.8, label=label)
    axes.set(xscale="log", xlim=(left, right), ylim=(len(names) - 0.5, -0.5), title=_plain(title))
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_xlabel("energy: mean, with its 90 % interval")
    _plain_ticks(axes.xaxis, subs=(1.0,), written=format_joules)
    axes.grid(visible=True, axis="x", which="major", alpha=0.3)
    if used:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    _save(figure, path)


def _span(energies: Sequence[Energy]) -> tuple[float, float]:
    """Ends of the axis: whole powers of ten around everything above zero, with room for the figures on the right."""
    above = [end for energy in energies for end in (energy.low, energy.mean, energy.high) if end > 0]
    if not above:
        return 0.1, 10.0
    most = max(above)
    # A low end near zero would stretch the axis over powers that say nothing.
    least = max(min(above), min(energy.mean for energy in energies if energy.mean > 0) / 100)
    left, right = 10 ** math.floor(math.log10(least)), 10 ** math.ceil(math.log10(most))
    return left, max(right, most * (right / left) ** 0.22, left * 10)


def _drawable(label: str, batches: Sequence[float], figures: Sequence[float], *, each: int) -> None:
    if not batches or len(figures) != each * len(batches):
        raise ConfigError(f"'{label}' has {len(batches)} batches and {len(figures) // each} figures of joules.")
    if not all(math.isfinite(value) and value > 0 for value in (*batches, *figures)):
        raise ConfigError(f"'{label}' has a figure that is not above 0, which a scale by powers cannot show.")


def _canvas(height_in: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("matplotlib is not installed. Run: pip install 'agentflow[plots]'") from error
    figure: Any = cast(Any, Figure)(figsize=(_WIDTH_IN, height_in), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain_ticks(
    axis: Any,
    *,
    base: float = 10.0,
    subs: Sequence[float] = (1.0, 2.0, 5.0),
    written: Callable[[float], str] = "{:g}".format,
) -> None:
    """Ticks at the powers of the base and their multiples, written out instead of as powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    def write(value: float, _: int | None) -> str:
        return written(value)

    axis.set_major_locator(LogLocator(base=base, subs=tuple(subs), numticks=15))
    axis.set_major_formatter(FuncFormatter(write))
    axis.set_minor_locator(NullLocator())


def _save(figure: Any, path: Path) -> None:
    if path.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"{path} does not say what to draw. Give a name that ends in {', '.join(_ENDINGS)}.")
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def _plain(text: str) -> str:
    """A name as it is written: never as a formula, and short enough to leave room for the figure."""
    short = text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"
    return short.replace("$", r"\$")
