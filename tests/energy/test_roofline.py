from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.energy.constants import shipped
from agentflow.energy.roofline import MOST_POWER, ModelShape
from tests.energy.shapes import A100, B200, DENSE_30B, H100, LLAMA_8B, LLAMA_70B, SPARSE_30B, step


def test_the_step_is_the_formula_of_the_documentation() -> None:
    # Llama-3.1-8B, bf16, one H100, batch 64, 500 tokens in, 300 out; the formula written out once more.
    k, batch, context = shipped().constants, 64, 500 + 300 / 2
    hidden = math.sqrt(8e9 / (12 * 32))
    moved = 8e9 * 2 + batch * 131_072 * context
    decode = batch * (2 * 8e9 + 4 * 32 * hidden * context)
    prefill = batch * 500 * (2 * 8e9 + 4 * 32 * hidden * 250) / 300
    memory, rate = moved / (3.35e12 * k.memory_efficiency), 989e12 * k.flop_efficiency
    seconds = max(memory, decode / rate) + prefill / rate + 32 * k.s_per_layer + batch * k.s_per_sequence
    joules = 700 * (
        k.busy_power * seconds + k.byte_power * moved / 3.35e12 + k.flop_power * (decode + prefill) / 989e12
    )
    found = step(LLAMA_8B, batch=64)
    assert (found.seconds, found.joules) == pytest.approx((seconds, joules))
    assert found.joules_per_token == pytest.approx(joules / 64)


@pytest.mark.parametrize(
    ("shape", "gpus", "batch", "joules"),
    [
        (LLAMA_8B, 1, 1, 3.714), (LLAMA_8B, 1, 8, 0.556), (LLAMA_8B, 1, 64, 0.161), (LLAMA_8B, 1, 256, 0.119),
        (LLAMA_70B, 4, 1, 41.76), (LLAMA_70B, 4, 8, 5.80), (LLAMA_70B, 4, 64, 1.308), (LLAMA_70B, 4, 256, 0.797),
    ],
)  # fmt: skip
def test_another_fit_of_the_same_runs_with_other_units_of_energy_agrees_within_a_quarter(
    shape: ModelShape, gpus: int, batch: int, joules: float
) -> None:
    # The reference has picojoules a byte and a FLOP in place of shares of a chip's power, and no regularisation.
    assert step(shape, gpus=gpus, batch=batch).joules_per_token == pytest.approx(joules, rel=0.25)


def test_a_mixture_of_experts_takes_less_than_a_dense_model_and_more_than_its_active_part() -> None:
    active, sparse, dense = (
        step(s).joules_per_token for s in (ModelShape(3e9, 3e9, 48, 98_000), SPARSE_30B, DENSE_30B)
    )
    assert active < sparse < dense


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


def test_a_larger_batch_takes_less_per_token_and_more_time_per_step() -> None:
    steps = [step(LLAMA_8B, batch=batch) for batch in (1, 8, 64, 512)]
    assert [s.joules_per_token for s in steps] == sorted((s.joules_per_token for s in steps), reverse=True)
    assert [s.seconds for s in steps] == sorted(s.seconds for s in steps)


def test_prompt_tokens_cost_and_cached_ones_cost_less_but_not_nothing() -> None:
    assert step(LLAMA_8B, prompt=5_000).joules > step(LLAMA_8B, prompt=50).joules
    none, cached, fresh = (step(LLAMA_8B, prompt=p, cached=c).joules for p, c in ((0, 0), (0, 5_000), (5_000, 0)))
    assert none < cached < fresh


def test_a_cached_token_costs_its_bytes_of_k_and_v_at_every_step() -> None:
    none, cached = step(LLAMA_8B, prompt=0), step(LLAMA_8B, prompt=0, cached=1_000)
    assert cached.kv_bytes - none.kv_bytes == pytest.approx(8 * 131_072 * 1_000)
    assert cached.prefill_flop == none.prefill_flop == 0


def test_sliding_windows_read_less_of_a_long_context() -> None:
    sliding = replace(LLAMA_8B, full_attention=0.25)
    assert step(sliding, prompt=20_000).joules < step(LLAMA_8B, prompt=20_000).joules
    assert step(sliding, prompt=500).joules == step(LLAMA_8B, prompt=500).joules


def test_attention_grows_with_the_square_of_a_long_prompt() -> None:
    short, long = step(LLAMA_8B, prompt=1_000), step(LLAMA_8B, prompt=100_000)
    assert long.prefill_flop > 2 * 100 * short.prefill_flop


def test_eight_bit_products_are_faster_only_where_the_chip_computes_them() -> None:
    fp8 = replace(LLAMA_8B, bytes_per_parameter=1.0, compute_bits=8)
    fp4 = replace(LLAMA_8B, bytes_per_parameter=0.5625, compute_bits=4)
    assert step(fp8).prefill_s < step(LLAMA_8B).prefill_s
    assert step(fp8, A100).prefill_s == step(LLAMA_8B, A100).prefill_s
    assert step(fp8, A100).joules < step(LLAMA_8B, A100).joules
    assert step(fp4, B200).prefill_s < step(fp8, B200).prefill_s
    assert step(fp4).prefill_s == step(LLAMA_8B).prefill_s


def test_a_slower_engine_takes_longer_and_waits_at_less_power() -> None:
    quick, slow = step(LLAMA_8B), step(LLAMA_8B, overhead=5.0)
    assert slow.seconds > quick.seconds and slow.joules > quick.joules
    assert slow.joules / slow.seconds < quick.joules / quick.seconds


@given(st.sampled_from([LLAMA_8B, LLAMA_70B, SPARSE_30B]), st.floats(1, 3_000), st.floats(1e-4, 10), st.floats(1, 20))
def test_joules_grow_with_measured_time_and_never_pass_what_the_boards_can_draw(
    shape: ModelShape, batch: float, seconds: float, more: float
) -> None:
    short, long = (step(shape, gpus=4, batch=batch, seconds=s) for s in (seconds, seconds * more))
    assert short.joules <= long.joules * (1 + 1e-9)
    for found in (short, long, step(shape, gpus=4, batch=batch)):
        assert found.joules <= MOST_POWER * 4 * H100.tdp_w * found.seconds * (1 + 1e-9)
