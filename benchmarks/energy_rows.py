"""Measured runs as rows: what each ran, on what, and what it took. A row that cannot be read says why.

The columns are those of the measurements that the constants are fitted on: model, total_b, active_b, precision,
hardware, n_gpu, engine, task, batch, isl, osl, j_per_output_token, output_tok_s, itl_ms. Chips and models are looked up
in agentflow's own tables, by exact id; a model that is not there goes by its size.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agentflow.energy.architectures import Precision, find_architecture, precision_named, shape_of_size
from agentflow.energy.chips import find_chip
from agentflow.energy.constants import engine_age
from agentflow.energy.facts import CallFacts, Deployment
from agentflow.energy.roofline import Chip, ModelShape
from agentflow.messages import TokenUsage

MEASURED = Path(__file__).parents[2] / "shared" / "data" / "energy" / "measured_h100_a100.csv"
# Prompt tokens where the measurements do not say. Assumed; halving or doubling them moves the error by about .01.
PROMPTS = {"lm-arena-chat": 150, "gpqa": 250, "sourcegraph-fim": 1200, "chat": 150, "code": 150}
_OTHER_PROMPT = 250
_SAME_FAMILY = re.compile(r"(-FP8|-FP4|-NVFP4|-Instruct|-Thinking|-2507|-it)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One steady run. ``joules`` per output token of all boards; ``step_s`` per token of one sequence."""

    model: str
    family: str
    shape: ModelShape
    precision: str
    chip: Chip
    gpus: int
    engine: str
    batch: float
    input_tokens: float
    output_tokens: float
    joules: float
    step_s: float
    itl_s: float
    active_b: float
    total_b: float

    @property
    def key(self) -> tuple[object, ...]:
        """Names the run: two files that hold the same one agree on it."""
        return (self.model, self.precision, self.chip.name, self.gpus, round(self.batch, 6), round(self.joules, 9))

    @property
    def current(self) -> bool:
        """Whether its engine is taken for a current one."""
        return engine_age(self.engine) != "old"

    def facts(self, *, batch: bool, time: bool) -> CallFacts:
        """The call that a run stands for, told with or without its batch and its time per token."""
        # Tokens of a call are whole numbers; a run's means are not, so a thousand calls are taken as one.
        usage = TokenUsage(round(self.input_tokens), max(round(self.output_tokens), 1))
        if batch:
            return CallFacts(usage, batch=self.batch, step_s=self.step_s if time else None)
        return CallFacts(usage, itl_s=self.itl_s if time else None)

    @property
    def deployment(self) -> Deployment:
        """Where it ran."""
        return Deployment(
            model=self.model, chip=self.chip.name, gpus=self.gpus, precision=self.precision, engine=self.engine
        )


@dataclass(frozen=True)
class Rows:
    """The rows that could be read, and how many could not, by why."""

    rows: tuple[Row, ...]
    left_out: Mapping[str, int]

    @property
    def notes(self) -> list[str]:
        """One line for each reason."""
        return [f"{count} rows left out: {why}" for why, count in self.left_out.items()]


class _Unreadable(ValueError):
    """Why a row cannot be read."""


def read_rows(path: Path) -> Rows:
    """Every text run of a file that can be read; the others are counted by their reason."""
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            for record in csv.DictReader(file):
                try:
                    rows.append(_row(record))
                except _Unreadable as why:
                    left_out[str(why)] += 1
    except (OSError, csv.Error) as error:
        left_out[f"{path.name} cannot be read from here on: {error}"] += 1
    return Rows(tuple(rows), left_out)


def _row(record: Mapping[str | None, str | None]) -> Row:
    task = _text(record, "task")
    if any(seen in task for seen in ("image", "video", "audio", "mllm", "multimodal")):
        raise _Unreadable("images, video or sound, whose tokens are not known")
    hardware = _text(record, "hardware")
    if not hardware:
        raise _Unreadable("no hardware given")
    chip = find_chip(hardware)
    if chip is None:
        raise _Unreadable(f"no data sheet for chip '{hardware[:40]}'")
    stated = _text(record, "precision")
    precision = precision_named(stated)
    if precision is None and stated:
        raise _Unreadable(f"precision '{stated[:20]}' is not known")
    batch, gpus, output = (_number(record, column) for column in ("batch", "n_gpu", "osl"))
    prompt = _maybe(record, "isl")
    rate, itl = _maybe(record, "output_tok_s"), _maybe(record, "itl_ms")
    if rate is None and itl is None:
        raise _Unreadable("neither output_tok_s nor itl_ms")
    step_s = batch / rate if rate is not None else (itl or 0.0) / 1e3
    joules = _joules(record, output, gpus, rate)
    model = _text(record, "model")
    shape = _shape(model, record, precision)
    return Row(
        model, _SAME_FAMILY.sub("", model), shape, stated, chip, max(round(gpus), 1), _text(record, "engine"),
        max(batch, 1.0), prompt if prompt is not None else _prompt(task), output, joules, step_s,
        itl / 1e3 if itl is not None else step_s, shape.active / 1e9, shape.total / 1e9,
    )  # fmt: skip


def _joules(record: Mapping[str | None, str | None], output: float, gpus: float, rate: float | None) -> float:
    """Per output token: as stated, else from the request's, else from watts and tokens a second."""
    stated, request = _maybe(record, "j_per_output_token"), _maybe(record, "j_per_request")
    watts = _maybe(record, "avg_power_w_per_gpu")
    if stated is not None:
        return stated
    if request is not None:
        return request / output
    if watts is not None and rate is not None:
        return watts * gpus / rate
    raise _Unreadable("no usable j_per_output_token, j_per_request or avg_power_w_per_gpu")


def _shape(model: str, record: Mapping[str | None, str | None], precision: Precision | None) -> ModelShape:
    known = find_architecture(model)
    if known is not None and precision is None:
        return known.shape
    if precision is None:
        raise _Unreadable("no precision given, and the model is not listed")
    if known is not None:
        return replace(
            known.shape,
            bytes_per_parameter=precision.bytes_per_parameter,
            compute_bits=precision.compute_bits,
        )
    active = _maybe(record, "active_b")
    total = _maybe(record, "total_b")
    size = active if active is not None else total
    if size is None:
        raise _Unreadable("neither a listed model nor active_b")
    return shape_of_size(size, total, precision)


def _prompt(task: str) -> float:
    return PROMPTS.get(task.rsplit("/", 1)[-1], _OTHER_PROMPT)


def _text(record: Mapping[str | None, str | None], column: str) -> str:
    return (record.get(column) or "").strip()


def _maybe(record: Mapping[str | None, str | None], column: str) -> float | None:
    try:
        value = float(_text(record, column))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _number(record: Mapping[str | None, str | None], column: str) -> float:
    value = _maybe(record, column)
    if value is None:
        raise _Unreadable(f"no usable {column}")
    return value


def by_size_alone(row: Row) -> Row:
    """The same run of a model that is not listed: its shape is made up from its size."""
    made_up = shape_of_size(row.active_b, row.total_b)
    weights, bits = row.shape.bytes_per_parameter, row.shape.compute_bits
    return replace(row, shape=replace(made_up, bytes_per_parameter=weights, compute_bits=bits))


def families(rows: Iterable[Row]) -> list[str]:
    """The model families, sorted."""
    return sorted({row.family for row in rows})
