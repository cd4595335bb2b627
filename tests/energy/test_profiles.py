from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentflow.config import EnergySettings
from agentflow.energy import CallFacts, Energy, EnergyProfile, profile_for
from agentflow.energy.architectures import PRECISIONS, shape_of_size
from agentflow.energy.estimate import Range
from agentflow.energy.gpu import Facility, GpuProfile, quantile
from agentflow.energy.profiles import CpuProfile
from agentflow.energy.remote import RemotePrior, _parts, _population, closed_models
from agentflow.errors import ConfigError
from agentflow.messages import Timings, TokenUsage
from tests.energy.shapes import A100, B200, H100, LLAMA_8B, LLAMA_70B

USAGE = TokenUsage(input=500, output=300)


# The remote prior


def test_the_documented_example_is_what_the_prior_says() -> None:
    energy = RemotePrior().estimate(CallFacts(TokenUsage(input=1_000, output=400)))
    assert (energy.mean, energy.low, energy.high) == pytest.approx((1_500.0, 50.0, 7_500.0))
    assert (energy.provenance, energy.scope) == ("modelled", "facility")


def test_published_averages_lie_within_the_prior() -> None:
    # Watt-hours a query: Google May 2025, Epoch AI, OpenAI June 2025, "How hungry is AI"; about 400 tokens of reply.
    for watt_hours in (0.24, 0.30, 0.34, 0.42):
        energy = RemotePrior().estimate(CallFacts(TokenUsage(input=200, output=400)))
        assert energy.low < watt_hours * 3_600 < energy.high
        assert watt_hours * 3_600 == pytest.approx(energy.mean, rel=0.4)


def test_the_prior_can_be_derived_again_from_the_roofline() -> None:
    sizes = [3 * (400 / 3) ** ((n + 0.5) / 12) for n in range(12)]
    shapes = [shape_of_size(size, None, PRECISIONS[precision]) for size in sizes for precision in ("fp8", "bf16")]
    parts = list(_population(tuple(_parts(shapes))))
    weights = [part.weight for part in parts]
    for ranges, prior, ends, mean in (
        ([p.output for p in parts], RemotePrior().output, (0.13, 11.0), 2.8),
        ([p.input for p in parts], RemotePrior().input, (0.013, 1.2), 0.29),
    ):
        low, high = (quantile(ranges, weights, part, lambda r: r.mean) for part in (0.05, 0.95))
        assert (low, high) == pytest.approx(ends, rel=0.08)
        whole = sum(w * r.mean for w, r in zip(weights, ranges, strict=True)) / sum(weights)
        assert whole == pytest.approx(mean, rel=0.03)
        assert prior.low <= low and high <= prior.high
        assert prior.mean == pytest.approx(mean, rel=0.2)


@pytest.mark.parametrize("model", [None, *(m for m in closed_models() if m.startswith("gpt-4o"))])
def test_published_anchors_lie_within_a_remote_models_interval_and_within_ten_times_of_its_mean(
    model: str | None,
) -> None:
    # Watt-hours: Epoch AI of GPT-4o, OpenAI's average query, "How hungry is AI" of GPT-4o; Google's median prompt.
    prior = RemotePrior() if model is None else RemotePrior.of_model(model)
    energy = prior.estimate(CallFacts(TokenUsage(input=200, output=400)))
    for watt_hours in (0.24, 0.30, 0.34, 0.42):
        assert energy.low < watt_hours * 3_600 < energy.high
        assert 0.1 < watt_hours * 3_600 / energy.mean < 10


def test_a_closed_models_size_is_an_interval_and_its_source_is_said() -> None:
    energy = RemotePrior.of_model("gpt-4o").estimate(CallFacts(USAGE))
    assert "Epoch AI" in energy.assumed[0]
    assert energy.high / energy.low > 50
    unlisted = RemotePrior.of_model("gpt-4o-but-not-quite").estimate(CallFacts(USAGE))
    assert "not listed" in unlisted.assumed[0]
    assert unlisted.mean == RemotePrior().estimate(CallFacts(USAGE)).mean


def test_the_time_per_token_tells_a_remote_deployment_and_stays_within_what_was_held() -> None:
    prior = RemotePrior.of_model("meta-llama/Llama-3.1-70B-Instruct")
    quick, slow = (prior.estimate(CallFacts(USAGE, itl_s=s)) for s in (0.012, 0.080))
    assert quick.mean > slow.mean
    assert "time per token" in quick.assumed[-1]
    most = prior.ceiling(USAGE.input, USAGE.output, 60.0)
    assert quick.high <= most and slow.high <= most


def test_a_remote_model_of_known_size_has_a_narrower_prior_that_grows_with_it() -> None:
    small, large = RemotePrior.of_size(8), RemotePrior.of_size(400)
    facts = CallFacts(USAGE)
    unknown = RemotePrior().estimate(facts)
    for known in (small.estimate(facts), large.estimate(facts)):
        assert known.high / known.low < unknown.high / unknown.low * 1.5
    assert small.estimate(facts).mean < large.estimate(facts).mean
    assert RemotePrior.of_size(8).estimate(facts).mean < RemotePrior.of_size(8, 100).estimate(facts).mean
    assert RemotePrior.of_size(8, bits=4).estimate(facts).mean < RemotePrior.of_size(8, bits=16).estimate(facts).mean


# Known GPUs


def test_a_known_batch_narrows_the_interval_and_moves_it() -> None:
    facts = CallFacts(USAGE)
    unknown = GpuProfile(LLAMA_8B, H100).estimate(facts)
    known = GpuProfile(LLAMA_8B, H100, batch=64).estimate(facts)
    alone = GpuProfile(LLAMA_8B, H100).estimate(CallFacts(USAGE, batch=1))
    assert known.high / known.low < unknown.high / unknown.low
    assert unknown.low < known.mean < unknown.high
    assert alone.mean > 10 * known.mean


def test_a_chip_that_the_constants_were_not_fitted_on_has_a_wider_interval() -> None:
    h100, b200 = (GpuProfile(LLAMA_8B, chip, batch=16).estimate(CallFacts(USAGE)) for chip in (H100, B200))
    assert b200.high / b200.low > 1.2 * h100.high / h100.low
    assert "data sheet alone" in " ".join(b200.assumed)


@pytest.mark.parametrize(
    ("host_w", "efficiency", "pue", "factors"),
    [(210.0, 0.92, 1.3, (2.40, 2.07, 1.91)), (160.0, 0.94, 1.1, (1.79, 1.59, 1.48))],
)
def test_the_building_adds_what_the_reference_says(
    host_w: float, efficiency: float, pue: float, factors: tuple[float, ...]
) -> None:
    building = Facility(*(Range(x, x, x) for x in (host_w, 1 / efficiency, pue)))
    for watts, factor in zip((300.0, 450.0, 600.0), factors, strict=True):
        assert building.of(watts, 1.0).mean / watts == pytest.approx(factor, abs=0.01)


def test_a_prompt_without_a_reply_is_not_free() -> None:
    assert GpuProfile(LLAMA_8B, H100, batch=8).estimate(CallFacts(TokenUsage(input=5_000))).low > 0
    assert GpuProfile(LLAMA_8B, H100).estimate(CallFacts(TokenUsage())).high == 0


# This machine


def test_cpu_seconds_are_what_a_call_on_this_machine_costs() -> None:
    counted = CpuProfile(threads=4).estimate(CallFacts(USAGE, Timings(total_s=10.0, cpu_s=2.0)))
    assert (counted.low, counted.mean, counted.high) == pytest.approx((5.2, 15.0, 50.0))
    wall = CpuProfile(threads=4).estimate(CallFacts(USAGE, Timings(total_s=10.0)))
    assert wall.mean == pytest.approx(300.0)
    assert counted.scope == "server"


def test_a_call_that_nobody_timed_is_not_free() -> None:
    energy = CpuProfile().estimate(CallFacts(USAGE))
    assert energy.low > 0
    assert energy.high / energy.low > 100
    assert "not timed" in energy.assumed[-1]


# What providers report


def test_a_believable_report_wins_and_a_forged_one_is_ignored() -> None:
    usage = TokenUsage(input=100, output=100)
    for profile in PROFILES:
        modelled = profile.estimate(CallFacts(usage, Timings(total_s=5.0)))
        kept = profile.estimate(CallFacts(usage, Timings(total_s=5.0), reported_joules=42.0))
        assert kept == Energy(42.0, 42.0, 42.0, "reported", modelled.scope)
        for forged in (-1.0, 0.0, 1e-9, float("nan"), float("inf"), modelled.high * 101, 1e12):
            energy = profile.estimate(CallFacts(usage, Timings(total_s=5.0), reported_joules=forged))
            assert (energy.provenance, energy.mean) == ("modelled", modelled.mean)
            assert "not believable" in energy.assumed[-1]


# Every profile

PROFILES: list[EnergyProfile] = [
    CpuProfile(),
    CpuProfile(threads=4),
    CpuProfile(cores=Range(1.0, 4.0, 16.0)),
    RemotePrior(),
    RemotePrior.of_size(70),
    RemotePrior.of_model("openai/gpt-oss-20b"),
    GpuProfile(LLAMA_8B, H100),
    GpuProfile(LLAMA_8B, H100, batch=16),
    GpuProfile(LLAMA_70B, A100, 4, batch=16, engine="vllm-0.11"),
]


@st.composite
def calls(draw: st.DrawFn) -> tuple[CallFacts, tuple[int, int, float]]:
    """A call, and bounds that it keeps."""
    prompt, reply = draw(st.integers(0, 20_000)), draw(st.integers(0, 4_000))
    seconds = draw(st.floats(0.001, 300))
    usage = TokenUsage(draw(st.integers(0, prompt)), draw(st.integers(0, reply)), draw(st.integers(0, prompt * 2)))
    total_s = draw(st.floats(0, seconds))
    first = draw(st.none() | st.floats(0, total_s))
    timings = Timings(total_s, first_token_s=first, cpu_s=draw(st.none() | st.floats(0, total_s)))
    return CallFacts(usage, timings, batch=draw(st.none() | st.floats(16, 3_000))), (prompt, reply, seconds)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.name)
@given(calls())
def test_no_call_within_the_bounds_is_estimated_above_the_ceiling(
    profile: EnergyProfile, call: tuple[CallFacts, tuple[int, int, float]]
) -> None:
    facts, bounds = call
    # A call that had GPUs of unknown load to itself may use more than is held: its time per token tells.
    unbounded = isinstance(profile, GpuProfile) and profile.batch is None and facts.batch is None
    assume(not (unbounded and facts.token_s is not None))
    assert profile.estimate(facts).high <= profile.ceiling(*bounds) * (1 + 1e-9)


wild = st.integers(-(10**9), 10**12)
wild_floats = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.name)
@given(wild, wild, wild, wild_floats, wild_floats, wild_floats)
def test_no_facts_a_hostile_server_could_send_raise(
    profile: EnergyProfile,
    prompt: int,
    reply: int,
    cached: int,
    reported: float | None,
    batch: float | None,
    cpu_s: float | None,
) -> None:
    timings = Timings(1.0, cpu_s=None if cpu_s is None else min(cpu_s, 1e9))
    energy = profile.estimate(CallFacts(TokenUsage(prompt, reply, cached), timings, reported, batch))
    assert energy.high >= energy.low >= 0


@pytest.mark.parametrize("profile", [p for p in PROFILES if not isinstance(p, CpuProfile)], ids=lambda p: p.name)
@given(st.integers(1, 20_000), st.integers(1, 2_000))
def test_cached_prompt_tokens_take_less_than_fresh_ones_and_not_nothing(
    profile: EnergyProfile, prompt: int, reply: int
) -> None:
    nothing, cached, fresh = (
        profile.estimate(CallFacts(TokenUsage(p, reply, c))).mean for p, c in ((0, 0), (prompt, prompt), (prompt, 0))
    )
    assert nothing < cached < fresh


# Which profile a model gets

GPU = EnergySettings(kind="gpu", active_b=8.0, layers=32, kv_bytes=1e5, chip="L40S", weight_bits=8, gpus=2, batch=16)


def test_what_the_configuration_says_chooses_the_profile() -> None:
    assert isinstance(profile_for(GPU, model="m", in_process=False), GpuProfile)
    assert isinstance(profile_for(None, model="m", in_process=True), CpuProfile)
    assert profile_for(None, model="m", in_process=False) == RemotePrior()
    assert profile_for(EnergySettings(kind="remote"), model="m", in_process=False) == RemotePrior()
    sized = EnergySettings(kind="remote", active_b=8)
    assert profile_for(sized, model="m", in_process=False) == RemotePrior.of_size(8)


def test_a_listed_model_needs_nothing_but_its_id_and_its_chip() -> None:
    listed = EnergySettings(kind="gpu", model="meta-llama/Llama-3.1-8B-Instruct", chip="H100", precision="fp8")
    profile = profile_for(listed, model="m", in_process=False)
    assert isinstance(profile, GpuProfile)
    assert (profile.shape.layers, profile.shape.bytes_per_parameter, profile.gpus) == (32, 1.0, 1)
    served = profile_for(None, model="m", in_process=False, served="openai/gpt-oss-20b")
    assert served == RemotePrior.of_model("openai/gpt-oss-20b")


def test_a_server_on_unknown_cores_has_a_wider_interval_than_this_process() -> None:
    facts = CallFacts(USAGE, Timings(total_s=10.0))
    here = profile_for(EnergySettings(kind="cpu", watts=9.0), model="m", in_process=True).estimate(facts)
    there = profile_for(EnergySettings(kind="cpu", watts=9.0), model="m", in_process=False).estimate(facts)
    assert here.mean == pytest.approx(10 * (9.0 + 1.5))
    assert there.high == pytest.approx(16 * here.high)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"layers": None}, "needs layers"),
        ({"active_b": None, "model": "somebody/unlisted"}, "not a listed model"),
        ({"chip": "Abacus"}, "Known chips"),
        ({"total_b": 4.0}, "less than active_b"),
        ({"experts_used": 8}, "8 experts of 1"),
    ],
)
def test_figures_that_are_missing_or_contradict_each_other_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        profile_for(GPU.model_copy(update=wrong), model="m", in_process=False)
