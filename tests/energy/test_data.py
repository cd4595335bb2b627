from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import pytest

from agentflow.energy.architectures import PRECISIONS, architectures, find_architecture, shape_of_size
from agentflow.energy.chips import chip_named, chips, find_chip
from agentflow.energy.constants import TIERS, constants_table, engine_age, shipped
from agentflow.energy.remote import closed_models
from agentflow.errors import ConfigError


def table(name: str) -> Any:
    return json.loads(resources.files("agentflow.energy").joinpath(f"data/{name}.json").read_text("utf-8"))


def test_every_chip_has_figures_that_can_be_with_their_source_and_date() -> None:
    for row in table("chips")["chips"]:
        assert row["source"] and re.fullmatch(r"20\d\d-\d\d", row["date"]) and row["checked"]
    assert len(chips()) >= 30
    for chip in chips().values():
        assert 50 < chip.tdp_w < 2_000
        assert 1e11 < chip.bytes_per_s < 1e13
        assert chip.memory_bytes > 1e10
        assert chip.flops_8 is None or 0.9 < chip.flops_8 / chip.flops_16 < 2.1
        assert chip.flops_4 is None or (chip.flops_8 is not None and 1.9 < chip.flops_4 / chip.flops_8 < 4.1)


def test_a_chip_goes_by_several_names_and_never_by_one_that_is_only_alike() -> None:
    for name in ("H100", "h100-sxm5-80gb", "NVIDIA H100 80GB HBM3", "H100_SXM"):
        assert chip_named(name).name == "H100-SXM5-80GB"
    assert find_chip("H1000") is None and find_chip("H100 SXM6") is None and find_chip("") is None
    names = [name.lower() for chip in chips().values() for name in {chip.name, *chip.aliases}]
    assert len(set(names)) == len(names)


def test_a_chip_that_is_not_listed_is_not_guessed() -> None:
    with pytest.raises(ConfigError, match=r"Known chips: .*H100"):
        chip_named("Abacus")


def test_every_model_has_a_shape_that_can_be_and_a_date() -> None:
    for row in table("architectures")["models"]:
        assert re.fullmatch(r"20\d\d-\d\d", row["date"])
    for name, known in architectures().items():
        shape = known.shape
        assert 0 < shape.active <= shape.total, name
        assert 1 <= shape.experts_used <= shape.experts, name
        assert 0 <= shape.full_attention <= 1 and shape.window > 0, name
        assert 1e3 < shape.kv_bytes < 1e7, name
        assert not shape.guessed


def test_models_match_by_exact_id_alone() -> None:
    assert find_architecture("meta-llama/Llama-3.1-8B-Instruct") is not None
    for alike in ("Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct-foo", "meta-llama/llama-3.1-8b-instruct"):
        assert find_architecture(alike) is None


@pytest.mark.parametrize(
    ("model", "kilobytes"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 131), ("meta-llama/Llama-3.1-70B-Instruct", 328), ("bloom-176b", 4014),
        ("Qwen/Qwen3-30B-A3B", 98), ("openai/gpt-oss-120b", 74), ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", 16),
    ],
)  # fmt: skip
def test_bytes_of_k_and_v_agree_with_a_second_list(model: str, kilobytes: float) -> None:
    known = find_architecture(model)
    assert known is not None and known.shape.kv_bytes / 1e3 == pytest.approx(kilobytes, rel=0.03)


def test_a_shape_made_up_from_a_size_is_near_the_family_it_is_built_as() -> None:
    for model, size in (("meta-llama/Llama-3.1-8B", 8.0), ("meta-llama/Llama-3.1-70B", 70.0)):
        known, made_up = architectures()[model].shape, shape_of_size(size, None)
        assert made_up.layers == pytest.approx(known.layers, rel=0.1)
        assert made_up.kv_bytes == pytest.approx(known.kv_bytes, rel=0.1)
        assert made_up.guessed


def test_precisions_take_their_bits_and_their_scales() -> None:
    for name, bits in (("bf16", 16), ("fp8", 8), ("int4", 4), ("mxfp4", 4), ("nvfp4", 4), ("nf4", 4)):
        assert bits <= PRECISIONS[name].bytes_per_parameter * 8 <= bits * 1.13


def test_sizes_of_closed_models_are_intervals_with_a_source() -> None:
    for name, closed in closed_models().items():
        assert 0 < closed.active_b[0] < closed.active_b[1], name
        assert closed.active_b[1] <= closed.total_b[1] and closed.active_b[0] <= closed.total_b[0], name
        assert re.search(r"20\d\d-\d\d$", closed.source), name


def test_ten_constants_at_most_each_within_the_range_of_its_half_fits() -> None:
    constants = constants_table()["constants"]
    assert len(constants) <= 10
    for name, row in constants.items():
        low, high = row["half_fits"]
        assert 0 < low <= high, name
        assert low * 0.8 <= row["value"] <= high * 1.25, name
    for part in ("date", "command", "rows", "data"):
        assert constants_table()[part]


def test_intervals_are_wider_for_chips_that_were_not_measured() -> None:
    for tier in TIERS:
        assert shipped().unfitted[tier] > shipped().widths[tier] > 0


@pytest.mark.parametrize(
    ("engine", "age"),
    [
        ("vllm-0.11", "current"), ("vLLM 0.12.1", "current"), ("vllm-v1.0", "current"), ("vllm-0.5 era", "old"),
        ("vllm-2023", "old"), ("vllm-2026", "current"), ("sglang-0.5", None), ("trtllm", None), ("", None),
        (None, None),
    ],
)  # fmt: skip
def test_engines_are_known_by_their_version(engine: str | None, age: str | None) -> None:
    assert engine_age(engine) == age
