from __future__ import annotations

from dataclasses import replace

import pytest

from agentflow.energy.chips import chip_named, chips
from agentflow.energy.roofline import ModelShape, decode_step
from agentflow.errors import ConfigError
from tests.energy.shapes import A100, H100, LLAMA_8B, LLAMA_70B


@pytest.mark.parametrize(
    ("shape", "gpus", "batch", "milliseconds", "joules"),
    [
        (LLAMA_8B, 1, 1, 7.66, 3.714), (LLAMA_8B, 1, 8, 8.77, 0.556), (LLAMA_8B, 1, 64, 17.64, 0.161),
        (LLAMA_8B, 1, 256, 48.03, 0.119), (LLAMA_70B, 4, 1, 22.97, 41.76), (LLAMA_70B, 4, 8, 24.34, 5.80),
        (LLAMA_70B, 4, 64, 35.29, 1.308), (LLAMA_70B, 4, 256, 72.86, 0.797),
    ],
)  # fmt: skip
def test_the_roofline_gives_the_reference_values(
    shape: ModelShape, gpus: int, batch: int, milliseconds: float, joules: float
) -> None:
    step = decode_step(shape, H100, gpus, batch, 500, 300)
    assert step.seconds * 1e3 == pytest.approx(milliseconds, rel=0.01)
    assert step.joules_per_token == pytest.approx(joules, rel=0.01)


def test_the_documented_derivation_can_be_done_by_hand() -> None:
    # docs/energy.md, line by line: Llama-3.1-8B, bf16, one H100, batch 64, 500 tokens in, 300 out.
    weights = 8e9 * 2
    kv = 64 * 131_072 * (500 + 300 / 2)
    prefill = 2 * 8e9 * 64 * 500 / 300
    seconds = (weights + kv) / (3.35e12 * 0.947) + prefill / (989e12 * 0.675) + 32 * 76.9e-6 + 64 * 91.5e-6
    joules = 0.535 * 700 * seconds + 49.9e-12 * (weights + kv) + 0.97e-12 * (2 * 8e9 * 64 + prefill)
    step = decode_step(LLAMA_8B, H100, 1, 64, 500, 300)
    assert (step.seconds, step.joules) == pytest.approx((seconds, joules))
    assert joules / 64 == pytest.approx(0.161, abs=0.001)


def per_token(
    shape: ModelShape, batch: float = 8, prompt: float = 500, cached: float = 0, chip: str = H100.name
) -> float:
    return decode_step(shape, chip_named(chip), 1, batch, prompt, 300, cached).joules_per_token


DENSE_30B = ModelShape(30e9, 30e9, 48, 98_000)
SPARSE_30B = ModelShape(3e9, 30e9, 48, 98_000, experts=128, experts_used=8)


def test_a_mixture_of_experts_takes_less_than_a_dense_model_and_more_than_its_active_part() -> None:
    assert per_token(ModelShape(3e9, 3e9, 48, 98_000)) < per_token(SPARSE_30B) < per_token(DENSE_30B)


def test_a_mixtures_batch_touches_more_experts_until_it_touches_all() -> None:
    touched = [SPARSE_30B.weight_bytes(batch) for batch in (1, 8, 64, 1024)]
    assert touched == sorted(touched)
    assert touched[0] == pytest.approx(2 * 3e9, rel=0.01)
    assert touched[-1] == pytest.approx(2 * 30e9, rel=0.01)


def test_a_mixture_whose_experts_are_not_known_is_taken_for_experts_alone() -> None:
    unknown = ModelShape(3e9, 30e9, 48, 98_000)
    assert unknown.weight_bytes(1) == pytest.approx(2 * 3e9, rel=0.2)
    assert unknown.weight_bytes(1_000) == pytest.approx(2 * 30e9, rel=0.05)


def test_a_mixture_that_uses_every_expert_reads_every_weight() -> None:
    assert ModelShape(8e9, 8e9, 32, 1e5, experts=8, experts_used=8).weight_bytes(4) == 2 * 8e9


def test_fewer_bits_take_less() -> None:
    bf16, fp8, fp4 = (replace(LLAMA_8B, bytes_per_parameter=b) for b in (2.0, 1.0, 0.53))
    assert per_token(fp4) < per_token(fp8) < per_token(bf16)
    # A chip without 8-bit floats computes them in 16 bit, and still reads fewer bytes.
    assert per_token(fp8, chip=A100.name) < per_token(bf16, chip=A100.name)


def test_a_larger_batch_takes_less_per_token_and_more_time_per_step() -> None:
    steps = [decode_step(LLAMA_8B, H100, 1, batch, 500, 300) for batch in (1, 8, 64, 512)]
    assert [s.joules_per_token for s in steps] == sorted((s.joules_per_token for s in steps), reverse=True)
    assert [s.seconds for s in steps] == sorted(s.seconds for s in steps)


def test_prompt_tokens_cost_and_cached_ones_cost_less_but_not_nothing() -> None:
    assert per_token(LLAMA_8B, prompt=5_000) > per_token(LLAMA_8B, prompt=50)
    none, cached, fresh = (per_token(LLAMA_8B, prompt=p, cached=c) for p, c in ((0, 0), (0, 5_000), (5_000, 0)))
    assert none < cached < fresh


def test_sliding_windows_read_less_of_a_long_context() -> None:
    sliding = replace(LLAMA_8B, full_attention=0.25)
    assert per_token(sliding, prompt=20_000) < per_token(LLAMA_8B, prompt=20_000)
    assert per_token(sliding, prompt=500) == per_token(LLAMA_8B, prompt=500)


def test_no_step_draws_more_than_the_chips_rating() -> None:
    for batch in (1, 64, 2_048):
        step = decode_step(LLAMA_70B, H100, 4, batch, 8_000, 10)
        assert step.joules <= 4 * H100.tdp_w * step.seconds * (1 + 1e-9)


def test_every_chip_has_its_figures_and_their_source() -> None:
    assert len(chips()) >= 6
    for chip in chips().values():
        assert "cross-checked" in chip.source
        assert 50 < chip.tdp_w < 2_000
        assert 1e11 < chip.bytes_per_s < 1e13
        assert chip.flops_8 is None or 1.9 < chip.flops_8 / chip.flops_16 < 2.1
        assert chip.memory_bytes > 1e10


def test_a_chip_that_is_not_listed_is_not_guessed() -> None:
    with pytest.raises(ConfigError, match="Known chips: A100"):
        chip_named("Abacus")
