"""Joules of every hypothesis at once: the same as one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.energy.chips import chip_named
from agentflow.energy.facts import CallFacts, Range, Speculation
from agentflow.energy.gpu import Facility, GpuProfile, plausible, pooled, tier_of
from agentflow.energy.population import Parts, Population
from agentflow.energy.remote import RemotePrior
from agentflow.messages import TokenUsage

PRIORS = [RemotePrior.of_model("gpt-4o"), RemotePrior.of_size(8.0), RemotePrior.of_model("openai/gpt-oss-120b")]


@st.composite
def calls(draw: st.DrawFn) -> CallFacts:
    prompt = draw(st.integers(0, 200_000))
    usage = TokenUsage(prompt, draw(st.integers(1, 20_000)), draw(st.integers(0, prompt)))
    times = st.none() | st.floats(1e-5, 10.0)
    batch, itl_s, step_s = draw(st.none() | st.floats(0.1, 5_000.0)), draw(times), draw(times)
    return CallFacts(usage, batch=batch, itl_s=itl_s, step_s=step_s)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
@given(facts=calls())
def test_a_remote_call_is_estimated_as_its_hypotheses_say(prior: RemotePrior, facts: CallFacts) -> None:
    energy, weighed = prior.estimate(facts), prior.weighed(facts)
    fresh, cached, output = facts.tokens
    prior_only = prior.output * output + prior.input * fresh + prior.cached * cached
    expected = prior_only if weighed is None else weighed.joules
    for found, joules in zip((energy.low, energy.mean, energy.high), ends(expected), strict=True):
        assert found == pytest.approx(min(joules, prior_only.high), rel=1e-9)


def mixed() -> Parts:
    """Deployments that differ in all that a profile can say."""
    chip, other = chip_named("H100-SXM5-80GB"), chip_named("A100-SXM4-80GB")
    first = PRIORS[2].parts[0][1]
    hybrid = replace(first.shape, full_attention=0.25, window=512, attention_layers=6)
    drafting = Speculation(drafted=3, accepted=2.5, draft_b=1.0)
    return (
        (1.0, GpuProfile(hybrid, chip, 4)),
        (0.5, GpuProfile(first.shape, other, 2, engine="vllm-0.11", facility=Facility(pue=Range(1.1, 1.2, 1.3)))),
        (0.2, GpuProfile(first.shape, chip, 1, engine="vllm-0.5", speculation=drafting)),
        (0.3, GpuProfile(hybrid, chip, 8, scope="board")),
    )


@given(facts=calls())
def test_deployments_of_every_kind_are_estimated_as_their_hypotheses_say(facts: CallFacts) -> None:
    parts, tier, batch = mixed(), tier_of(facts), plausible(facts.batch)
    tokens = tuple(map(float, facts.tokens))
    hypotheses = [
        h.times(likely)
        for likely, part in parts
        for h in part.hypotheses(tokens, tier, batch, facts.token_s, apart=facts.step_s is None)
    ]
    expected = pooled(hypotheses, tier, 1.5, parts[0][1].fitted.floor).joules
    found = Population(parts).joules(tokens, tier, batch, facts.token_s, 1.5, apart=facts.step_s is None)
    assert ends(found) == pytest.approx(ends(expected), rel=1e-9)


def ends(joules: Range) -> tuple[float, float, float]:
    return joules.low, joules.mean, joules.high
