from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.energy.estimate import CallFacts, Deployment, Range, Speculation, estimate, profile_of
from agentflow.energy.gpu import GpuProfile, plausible
from agentflow.energy.interval import Energy
from agentflow.energy.remote import RemotePrior
from agentflow.errors import ConfigError
from agentflow.messages import Timings, TokenUsage
from tests.energy.shapes import H100, LLAMA_8B

USAGE = TokenUsage(input=500, output=300)
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
HERE = Deployment(model=LLAMA, chip="H100", engine="vllm-0.11", batch=32)


def joules(deployment: Deployment = HERE, usage: TokenUsage = USAGE, itl_s: float | None = None) -> Energy:
    return estimate(CallFacts(usage, itl_s=itl_s, deployment=deployment), scope="board")


# What moves the number, and which way


def test_a_larger_batch_takes_less() -> None:
    means = [joules(replace(HERE, batch=batch)).mean for batch in (1, 4, 16, 64, 256)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 10 * means[-1]


@pytest.mark.parametrize("chip", ["H100", "B200", "A100"])
@pytest.mark.parametrize("batch", [1, 64])
def test_fewer_bits_take_less(chip: str, batch: float) -> None:
    def at(precision: str) -> float:
        return joules(replace(HERE, chip=chip, batch=batch, precision=precision)).mean

    assert at("bf16") == at("fp16")
    assert at("mxfp4") < at("fp8") < at("bf16") or batch == 64
    for four_bits in ("int4", "nf4", "mxfp4", "nvfp4", "fp4"):
        assert at(four_bits) < at("bf16")
    assert at("fp8") < at("bf16")


def test_four_bit_products_pay_on_a_chip_that_computes_them() -> None:
    wide = Deployment(model="meta-llama/Llama-3.1-70B-Instruct", engine="vllm-0.11", batch=256, gpus=4)
    for chip, gain in (("B200", True), ("H100", False)):
        weights_alone, all_of_it = (
            joules(replace(wide, chip=chip, precision=precision)).mean for precision in ("int4", "nvfp4")
        )
        assert (all_of_it < 0.9 * weights_alone) == gain


def test_a_sparse_model_takes_less_than_a_dense_one_of_its_size_and_loses_some_of_it_with_batch() -> None:
    def per_dense(batch: float) -> float:
        sparse = Deployment(active_b=3, total_b=30, layers=48, kv_bytes=98_000, experts=128, experts_used=8)
        dense = Deployment(active_b=30, layers=48, kv_bytes=98_000)
        where = {"chip": "H100", "gpus": 1, "engine": "vllm-0.11", "batch": batch}
        return joules(replace(sparse, **where)).mean / joules(replace(dense, **where)).mean

    assert per_dense(1) < 1 and per_dense(32) < 1
    active = Deployment(active_b=3, layers=48, kv_bytes=98_000, chip="H100", gpus=1, engine="vllm-0.11", batch=32)
    sparse = replace(active, total_b=30, experts=128, experts_used=8)
    assert joules(sparse).mean > joules(active).mean


@given(st.integers(1, 20_000), st.integers(1, 2_000), st.sampled_from([1.0, 16.0, 256.0]))
def test_cached_tokens_take_less_than_fresh_ones_and_never_nothing(prompt: int, reply: int, batch: float) -> None:
    here = replace(HERE, batch=batch)
    none, cached, fresh = (
        joules(here, TokenUsage(p, reply, c)).mean for p, c in ((0, 0), (prompt, prompt), (prompt, 0))
    )
    assert none < cached < fresh


def test_speculative_decoding_saves_joules_alone_and_wastes_them_in_a_full_batch() -> None:
    model = "meta-llama/Llama-3.1-70B-Instruct"
    plain = Deployment(model=model, chip="H100", gpus=4, engine="vllm-0.11")
    drafting = replace(plain, speculation=Speculation(drafted=4, accepted=2.5, draft_b=1.0))
    assert joules(replace(drafting, batch=1)).mean < 0.7 * joules(replace(plain, batch=1)).mean
    poor = replace(plain, speculation=Speculation(drafted=8, accepted=1.2, draft_b=1.0))
    assert joules(replace(poor, batch=512)).mean > joules(replace(plain, batch=512)).mean
    good, bad = (replace(plain, batch=8, speculation=Speculation(4, accepted)) for accepted in (4.0, 1.5))
    assert joules(good).mean < joules(bad).mean


def test_speculation_that_cannot_be_is_refused() -> None:
    for drafted, accepted in ((4, 6), (4, 0.5), (-1, 1)):
        with pytest.raises(ValueError, match="drafted"):
            Speculation(drafted, accepted)


def test_eight_bit_k_and_v_read_less_of_a_long_context() -> None:
    long = TokenUsage(input=30_000, output=300, cached_input=30_000)
    assert joules(replace(HERE, kv_bits=8), long).mean < joules(HERE, long).mean


def test_an_old_engine_takes_more_and_an_unknown_one_is_wider() -> None:
    current, old, unknown = (joules(replace(HERE, engine=engine)) for engine in ("vllm-0.11", "vllm-0.4", None))
    assert old.mean > 1.2 * current.mean
    assert unknown.high / unknown.low > current.high / current.low
    assert current.mean < unknown.mean < old.mean


# What is known decides how


@pytest.mark.parametrize(
    ("deployment", "itl_s", "printed"),
    [
        (replace(HERE, batch=64), None, "86 J (41.8 J to 182 J, modelled)"),
        (replace(HERE, batch=1), None, "1.91 kJ (898 J to 4.07 kJ, modelled)"),
        (replace(HERE, batch=None), None, "124 J (23.2 J to 415 J, modelled)"),
    ],
)
def test_the_documented_calls_take_what_the_page_says(
    deployment: Deployment, itl_s: float | None, printed: str
) -> None:
    assert str(estimate(CallFacts(USAGE, itl_s=itl_s, deployment=deployment))) == printed


def test_the_more_is_known_the_narrower_the_interval() -> None:
    def width(energy: Energy) -> float:
        return energy.high / energy.low

    unknown = replace(HERE, batch=None)
    both, batch, time, neither = joules(itl_s=0.012), joules(), joules(unknown, itl_s=0.012), joules(unknown)
    assert width(both) < width(batch) < width(time) < width(neither)
    assert width(neither) < width(joules(Deployment(model="nobody/knows")))


def test_a_measured_time_wins_over_the_modelled_one() -> None:
    modelled = joules()
    slow = joules(itl_s=0.100)
    assert slow.mean > 1.5 * modelled.mean
    assert "measured time per token" in slow.assumed[1]
    streamed = Timings(total_s=1.0 + 299 * 0.100, first_token_s=1.0)
    assert estimate(CallFacts(USAGE, streamed, deployment=HERE), scope="board").mean == pytest.approx(slow.mean)
    # The whole call's seconds hold the queue as well, and say nothing.
    assert estimate(CallFacts(USAGE, Timings(total_s=30.0), deployment=HERE), scope="board") == modelled


def test_a_calls_own_prefill_comes_on_top_of_the_time_between_its_tokens() -> None:
    long = TokenUsage(input=20_000, output=100)
    alone = replace(HERE, batch=1)
    between = estimate(CallFacts(long, itl_s=0.010, deployment=alone), scope="board")
    whole = estimate(CallFacts(long, step_s=0.010, deployment=alone), scope="board")
    assert between.mean > 1.05 * whole.mean
    cached = TokenUsage(input=20_000, output=100, cached_input=20_000)
    between, whole = CallFacts(cached, itl_s=0.010, deployment=alone), CallFacts(cached, step_s=0.010, deployment=alone)
    assert estimate(between, scope="board").mean == pytest.approx(estimate(whole, scope="board").mean)


def test_a_time_per_token_tells_the_batch() -> None:
    profile = GpuProfile(LLAMA_8B, H100, engine="vllm-0.11", scope="board")
    for batch in (64.0, 256.0):
        truth = replace(profile, batch=batch).weigh(CallFacts(USAGE))
        told = profile.weigh(CallFacts(USAGE, itl_s=truth.hypotheses[0].step.token_s))
        likeliest = max(told.hypotheses, key=lambda h: h.weight).step.batch
        assert likeliest == batch
        assert told.joules.low < truth.joules.mean < told.joules.high


def test_the_weights_of_all_ways_sum_to_one_and_the_mean_is_theirs() -> None:
    found = GpuProfile(LLAMA_8B, H100, scope="board").weigh(CallFacts(USAGE))
    assert sum(h.weight for h in found.hypotheses) == pytest.approx(1)
    assert sum(h.weight * h.joules.mean for h in found.hypotheses) == pytest.approx(found.joules.mean)
    assert found.joules.low < found.median < found.joules.mean < found.joules.high


def test_boards_take_less_than_their_server_and_that_less_than_its_building() -> None:
    facts = CallFacts(USAGE, deployment=HERE)
    board, server, facility = (estimate(facts, scope=scope) for scope in ("board", "server", "facility"))
    assert board.mean < server.mean < facility.mean
    assert [e.scope for e in (board, server, facility)] == ["board", "server", "facility"]
    own = replace(HERE, pue=Range(1.0, 1.0, 1.0))
    assert estimate(CallFacts(USAGE, deployment=own)).mean == pytest.approx(server.mean)


def test_a_report_of_the_provider_is_reported() -> None:
    energy = estimate(CallFacts(USAGE, reported_joules=50.0, deployment=HERE))
    assert energy == Energy(50.0, 50.0, 50.0, "reported", "facility")


def test_without_a_chip_the_call_is_a_remote_models() -> None:
    assert profile_of(Deployment()) == RemotePrior()
    assert profile_of(Deployment(active_b=8)) == RemotePrior.of_size(8)
    assert profile_of(Deployment(model=LLAMA)) == RemotePrior.of_model(LLAMA)
    assert estimate(CallFacts(TokenUsage(input=1_000, output=400))).mean == pytest.approx(1_500)


def test_a_model_known_by_its_size_alone_is_wider_than_a_listed_one() -> None:
    listed, sized = joules(), joules(Deployment(active_b=8.03, chip="H100", engine="vllm-0.11", batch=32))
    assert sized.mean == pytest.approx(listed.mean, rel=0.1)
    assert sized.high / sized.low > 1.2 * listed.high / listed.low
    assert "guessed" in " ".join(sized.assumed)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (Deployment(chip="Abacus", model="x"), "Known chips"),
        (replace(HERE, precision="fp3"), "Give bf16"),
        (Deployment(active_b=8, total_b=4, chip="H100"), "less than active_b"),
        (replace(HERE, experts=2, experts_used=4), "4 experts of 2"),
    ],
)
def test_figures_that_cannot_be_are_refused(wrong: Deployment, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        estimate(CallFacts(USAGE, deployment=wrong))


@given(st.floats(allow_nan=True, allow_infinity=True) | st.none())
def test_times_and_batches_that_cannot_be_are_not_believed(wild: float | None) -> None:
    facts = CallFacts(USAGE, itl_s=wild, batch=wild, deployment=HERE)
    energy = estimate(facts)
    assert 0 < energy.low <= energy.mean <= energy.high < 1e12
    assert facts.token_s is None or 1e-6 <= facts.token_s <= 3600
    assert plausible(wild) is None or 1 <= (plausible(wild) or 0) <= 65_536
