from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.config import EnergySettings
from agentflow.energy import CallFacts, Energy, profile_for
from agentflow.energy.chips import CHIPS
from agentflow.energy.estimate import EnergyProfile
from agentflow.energy.profiles import CpuProfile, GpuProfile, RemotePrior
from agentflow.energy.roofline import ModelShape, decode_step
from agentflow.errors import ConfigError
from agentflow.messages import Timings, TokenUsage

H100 = CHIPS["H100-SXM5-80GB"]
LLAMA_8B = ModelShape(8.0e9, 8.0e9, 32, 131_072)
LLAMA_70B = ModelShape(70.0e9, 70.0e9, 80, 328_000)


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


def per_token(shape: ModelShape, batch: float = 8, prompt: float = 500, cached: float = 0) -> float:
    return decode_step(shape, H100, 1, batch, prompt, 300, cached).joules_per_token


def test_each_effect_moves_the_figure_the_right_way() -> None:
    sparse = ModelShape(3e9, 30e9, 48, 98_000, experts=128, experts_used=8)
    dense = ModelShape(30e9, 30e9, 48, 98_000)
    fp8 = ModelShape(8e9, 8e9, 32, 65_536, bytes_per_parameter=1.0)
    assert per_token(sparse) < per_token(dense)
    assert per_token(fp8) < per_token(LLAMA_8B)
    assert per_token(LLAMA_8B, batch=64) < per_token(LLAMA_8B, batch=8) < per_token(LLAMA_8B, batch=1)
    assert per_token(LLAMA_8B, prompt=5_000) > per_token(LLAMA_8B, prompt=50)
    assert (
        per_token(LLAMA_8B, prompt=0) < per_token(LLAMA_8B, prompt=0, cached=5_000) < per_token(LLAMA_8B, prompt=5_000)
    )


def test_the_documented_example_is_what_the_prior_says() -> None:
    energy = RemotePrior().estimate(CallFacts(TokenUsage(input=1_000, output=400)))
    assert (energy.mean, energy.low, energy.high) == pytest.approx((1_400.0, 80.0, 7_500.0))
    assert energy.provenance == "modelled"


def test_a_known_batch_narrows_the_interval() -> None:
    usage = CallFacts(TokenUsage(input=500, output=300))
    unknown = GpuProfile(LLAMA_8B, H100).estimate(usage)
    known = GpuProfile(LLAMA_8B, H100, batch=64).estimate(usage)
    assert known.high / known.low < unknown.high / unknown.low


def test_a_believable_report_wins_and_a_forged_one_is_ignored() -> None:
    profile = RemotePrior()
    usage = TokenUsage(input=100, output=100)
    assert profile.estimate(CallFacts(usage, reported_joules=42.0)) == Energy(42.0, 42.0, 42.0, "reported")
    for forged in (-1.0, float("nan"), float("inf"), 1e12):
        energy = profile.estimate(CallFacts(usage, reported_joules=forged))
        assert energy.provenance == "modelled"
        assert "not believable" in energy.assumed[-1]


PROFILES: list[EnergyProfile] = [
    CpuProfile(),
    CpuProfile(threads=4),
    RemotePrior(),
    GpuProfile(LLAMA_8B, H100),
    GpuProfile(LLAMA_70B, H100, 4, batch=16),
]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.name)
@given(st.integers(0, 20_000), st.integers(0, 4_000), st.floats(0, 1), st.floats(0.001, 300))
def test_no_call_within_the_bounds_is_estimated_above_the_ceiling(
    profile: EnergyProfile, prompt: int, reply: int, cached: float, seconds: float
) -> None:
    usage = TokenUsage(prompt, reply, int(prompt * cached))
    energy = profile.estimate(CallFacts(usage, Timings(total_s=seconds)))
    assert energy.high <= profile.ceiling(prompt, reply, seconds) * (1 + 1e-9)


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3)), max_size=8))
def test_sums_of_energy_add_their_ends_and_keep_the_weakest_label(parts: list[tuple[float, float, float]]) -> None:
    ordered = [sorted(part) for part in parts]
    energies = [Energy(mean, low, high, "reported") for low, mean, high in ordered]
    total = sum(energies, Energy())
    assert total.low == pytest.approx(sum(e.low for e in energies))
    assert total.high == pytest.approx(sum(e.high for e in energies))
    assert (Energy(1, 1, 1, "modelled") + Energy(1, 1, 1, "reported")).provenance == "modelled"


@pytest.mark.parametrize("bad", [(1, 2, 3), (1, 0, 0.5), (float("nan"), 0, 1), (1, -1, 2)])
def test_joules_that_are_no_interval_are_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="joules"):
        Energy(*bad)


def test_what_the_configuration_says_chooses_the_profile() -> None:
    gpu = EnergySettings(
        kind="gpu", active_b=8.0, layers=32, kv_bytes=1e5, chip="L40S", weight_bits=8, gpus=2, batch=16
    )
    assert isinstance(profile_for(gpu, model="m", in_process=False), GpuProfile)
    assert isinstance(profile_for(EnergySettings(kind="cpu", watts=9.0), model="m", in_process=False), CpuProfile)
    assert isinstance(profile_for(None, model="m", in_process=True), CpuProfile)
    assert isinstance(profile_for(None, model="m", in_process=False), RemotePrior)
    with pytest.raises(ConfigError, match="needs layers"):
        profile_for(gpu.model_copy(update={"layers": None}), model="m", in_process=False)
    with pytest.raises(ConfigError, match="Known chips"):
        profile_for(gpu.model_copy(update={"chip": "Abacus"}), model="m", in_process=False)


def test_energy_prints_for_people() -> None:
    assert str(Energy(1_234.0, 600.0, 3_000.0, "modelled")) == "1.23 kJ (600 J to 3 kJ, modelled)"
    assert str(Energy(0.0042, 0.0042, 0.0042)) == "4.2 mJ (measured)"
