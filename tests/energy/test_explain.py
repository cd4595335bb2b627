from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.cli.energy import command
from agentflow.energy.constants import constants_table
from agentflow.energy.estimate import CallFacts, Deployment, EnergyProfile, Speculation, profile_of
from agentflow.energy.explain import Line, explain, figure
from agentflow.energy.profiles import CpuProfile
from agentflow.errors import UsageError
from agentflow.messages import Timings, TokenUsage

USAGE = TokenUsage(input=900, output=300, cached_input=400)
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
CALLS: dict[str, tuple[EnergyProfile, CallFacts]] = {
    "batch": (profile_of(Deployment(model=LLAMA, chip="H100", engine="vllm-0.11", batch=64)), CallFacts(USAGE)),
    "batch and time": (
        profile_of(Deployment(model="Qwen/Qwen3-30B-A3B", chip="A100", gpus=2, batch=16)), CallFacts(USAGE, itl_s=0.03)
    ),
    "time": (profile_of(Deployment(model=LLAMA, chip="B200", precision="nvfp4")), CallFacts(USAGE, itl_s=0.01)),
    "tokens": (profile_of(Deployment(model="google/gemma-3-27b-it", chip="MI300X"), scope="board"), CallFacts(USAGE)),
    "speculation": (
        profile_of(
            Deployment(model=LLAMA, chip="H100", batch=4, engine="vllm-0.4", speculation=Speculation(3, 2.2, 0.5))
        ),
        CallFacts(USAGE),
    ),
    "remote": (profile_of(Deployment()), CallFacts(USAGE)),
    "remote, timed": (profile_of(Deployment(model=LLAMA)), CallFacts(USAGE, itl_s=0.02)),
    "cpu": (CpuProfile(), CallFacts(USAGE, Timings(total_s=4.0, cpu_s=3.0))),
}  # fmt: skip

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min, "max": max, "sqrt": math.sqrt, "log2": math.log2, "exp": math.exp,
}  # fmt: skip


def calculate(text: str) -> float:
    """What a pocket calculator makes of a line's arithmetic."""

    def value(node: ast.AST) -> float:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=number) if isinstance(number, int | float):
                return float(number)
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=args):
                return float(_FUNCTIONS[name](*map(value, args)))
            case _:
                raise AssertionError(f"no arithmetic: {text}")

    return value(ast.parse(text.replace("^", "**"), mode="eval"))


def recalculated(lines: list[Line]) -> dict[str, float]:
    """Every line's value from what is printed of it alone, by its name."""
    ways = re.compile(r".*batch [\d.e+]+, engine x[\d.]+$")
    summed = 0.0
    found: dict[str, float] = {}
    for line in lines:
        printed = str(line).removeprefix(f"{line.what} = ").split("\n    [")[0]
        how = printed.rsplit(" = ", 1)[0] if " = " in printed else printed.split(" ")[0]
        how = how.replace("sum", repr(summed)) if line.what == "mean joules" else how
        found[line.what] = calculate(how)
        if ways.match(line.what):
            summed += found[line.what]
    return found


@pytest.mark.parametrize("name", CALLS)
def test_a_pocket_calculator_gets_every_printed_figure_from_the_printed_lines(name: str) -> None:
    profile, facts = CALLS[name]
    lines = explain(profile, facts)
    found = recalculated(lines)
    for line in lines:
        assert found[line.what] == pytest.approx(line.value, rel=2e-4, abs=1e-30), str(line)
    energy = profile.estimate(facts)
    assert [line.what for line in lines[-3:]] == ["mean joules", "low joules", "high joules"]
    ends = [found[line.what] for line in lines[-3:]]
    assert ends == pytest.approx([energy.mean, energy.low, energy.high], rel=1e-3)


@pytest.mark.parametrize("name", CALLS)
def test_every_figure_that_a_line_calculates_with_was_given_calculated_or_sourced_before(name: str) -> None:
    profile, facts = CALLS[name]
    seen: set[str] = set()
    for line in explain(profile, facts):
        used = set(re.findall(r"\d+\.?\d*(?:e[+-]?\d+)?", line.how))
        unsourced = {u for u in used if u not in seen and not line.source and float(u) not in (0, 1, 2, 4, 12)}
        if ", engine x" not in line.what:
            assert unsourced <= {figure(line.value), "0.98", "0.3"}, str(line)
        seen |= {figure(line.value), *used}


def test_what_a_provider_reported_is_not_derived() -> None:
    profile, facts = CALLS["batch"]
    reported = CallFacts(facts.usage, reported_joules=42.0)
    assert [str(line) for line in explain(profile, reported)] == [
        "joules reported by the provider = 42 J\n    [the reply itself]"
    ]


@settings(max_examples=30)
@given(
    st.sampled_from(["H100", "A100", "MI355X"]), st.sampled_from([LLAMA, "openai/gpt-oss-120b"]),
    st.integers(0, 40_000), st.integers(0, 5_000), st.none() | st.floats(1, 2_000), st.none() | st.floats(1e-3, 1.0),
)  # fmt: skip
def test_every_derivation_ends_in_the_estimate(
    chip: str, model: str, prompt: int, reply: int, batch: float | None, itl_s: float | None
) -> None:
    profile = profile_of(Deployment(model=model, chip=chip, batch=batch))
    facts = CallFacts(TokenUsage(prompt, reply), itl_s=itl_s)
    energy = profile.estimate(facts)
    lines = explain(profile, facts)
    assert [line.value for line in lines[-3:]] == pytest.approx([energy.mean, energy.low, energy.high])


# The command


def run(*options: str) -> Any:
    return CliRunner().invoke(command, ["explain", *options])


def test_the_command_prints_the_lines_and_their_json() -> None:
    options = ["--model", LLAMA, "--chip", "H100", "--batch", "64", "--input", "500", "--output", "300"]
    printed = run(*options, "--engine", "vllm-0.11", "--itl", "17")
    assert printed.exit_code == 0
    assert "K and V bytes a step = 64 * 131072 * 650 = 5.4526e+09 B" in printed.output
    assert printed.output.splitlines()[-1].startswith("high joules = ")
    data = json.loads(run(*options, "--json").output)
    assert data["lines"][-3]["what"] == "mean joules" and data["lines"][-3]["unit"] == "J"


@pytest.mark.parametrize("options", [[], ["--chip", "H100"], ["--output", "5", "--chip", "Abacus"], ["no-such-run:1"]])
def test_what_cannot_be_explained_says_why(options: list[str]) -> None:
    result = run(*options)
    assert isinstance(result.exception, UsageError)


def test_nobody_gives_tokens_below_zero_or_a_batch_of_none() -> None:
    for option in (["--output", "-1"], ["--output", "5", "--batch", "0"], ["--output", "5", "--itl", "0"]):
        assert run(*option).exit_code == 2


def test_the_documented_derivation_is_what_the_command_prints() -> None:
    page = (Path(__file__).parents[2] / "docs" / "energy.md").read_text("utf-8")
    asked, _, lines = page.split("```\n$ agentflow energy explain ")[1].split("\n```")[0].partition("\n")
    printed = [line for line in run(*asked.split()).output.splitlines() if not line.startswith("    [")]
    assert lines.splitlines() == printed


def test_the_documented_constants_are_those_that_are_shipped() -> None:
    page = (Path(__file__).parents[2] / "docs" / "energy.md").read_text("utf-8")
    rows = re.findall(r"^\| `\w+` .* \| ([\d.]+) \| [\d.]+ to [\d.]+ \|$", page, re.MULTILINE)
    shown = [
        row["value"] * (1e6 if name.startswith("s_per_") else 1) for name, row in constants_table()["constants"].items()
    ]
    assert [float(row) for row in rows] == pytest.approx(shown, rel=5e-3)
