"""The derivation of a call's joules, line by line, so that a pocket calculator can follow it.

Every line is an expression of printed figures, its value with its unit, and where its constants are from. May import
everything of this folder but grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentflow.energy.constants import constants_table
from agentflow.energy.estimate import CallFacts, EnergyProfile
from agentflow.energy.gpu import Estimate, Facility, GpuProfile, Hypothesis, surroundings
from agentflow.energy.profiles import CpuProfile
from agentflow.energy.remote import RemotePrior
from agentflow.energy.roofline import MOST_POWER

# A way that is less likely than this moves no printed digit.
_SEEN = 1e-7


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what, how, how much. ``how`` is arithmetic with + - * / ^ min max sqrt log2 exp, or a plain figure."""

    what: str
    how: str
    value: float
    unit: str
    source: str = ""

    def __str__(self) -> str:
        """``what = how = value unit`` and its source below; a figure that was given is printed once."""
        value = f"{figure(self.value)} {self.unit}".rstrip()
        shown = value if self.how == figure(self.value) else f"{self.how} = {value}"
        return f"{self.what} = {shown}" + (f"\n    [{self.source}]" if self.source else "")


def figure(value: float) -> str:
    """Six significant digits: what a line prints is what the next one calculates with."""
    return f"{value:.6g}"


def explain(profile: EnergyProfile, facts: CallFacts) -> list[Line]:
    """Every line from the facts of a call to its mean, low and high joules, which are the last three.

    Args:
        profile: of the model that was called.
        facts: of the call. A figure that the provider reported itself is not derived: it is the only line.
    """
    if profile.estimate(facts).provenance == "reported":
        return [_given("joules reported by the provider", facts.reported_joules or 0.0, "J", "the reply itself")]
    if isinstance(profile, GpuProfile):
        return list(_gpu(profile, facts))
    if isinstance(profile, CpuProfile):
        return list(_cpu(profile, facts))
    if isinstance(profile, RemotePrior):
        return list(_remote(profile, facts))
    energy = profile.estimate(facts)
    return [_given(what, value, "J", profile.name) for what, value in _ends(energy.mean, energy.low, energy.high)]


def _given(what: str, value: float, unit: str, source: str = "") -> Line:
    return Line(what, figure(value), value, unit, source)


def _ends(mean: float, low: float, high: float) -> tuple[tuple[str, float], ...]:
    return (("mean joules", mean), ("low joules", low), ("high joules", high))


# CPU and remote


def _cpu(profile: CpuProfile, facts: CallFacts) -> Iterator[Line]:
    seconds, known = profile.cpu_seconds(facts)
    busy = profile.busy_w
    source = "Green Algorithms: TDP over cores, .3725 W/GB of memory"
    for end, s, watts, core, memory in (
        ("mean", seconds.mean, busy.mean, profile.watts.mean, profile.memory_w.mean),
        ("low", seconds.low, busy.low, profile.watts.low, profile.memory_w.low),
        ("high", seconds.high, busy.high, profile.watts.high, profile.memory_w.high),
    ):
        yield _given(f"{end} CPU seconds", s, "s", known)
        yield Line(f"{end} watts of a busy core with memory", f"{figure(core)} + {figure(memory)}", watts, "W", source)
    for end, s, watts in (
        ("mean", seconds.mean, busy.mean), ("low", seconds.low, busy.low), ("high", seconds.high, busy.high),
    ):  # fmt: skip
        yield Line(f"{end} joules", f"{figure(s)} * {figure(watts)}", s * watts, "J")


def _remote(profile: RemotePrior, facts: CallFacts) -> Iterator[Line]:
    fresh, cached, output = facts.tokens
    energy = profile.estimate(facts)
    for what, tokens in (("uncached input", fresh), ("cached input", cached), ("output", output)):
        yield _given(f"{what} tokens", tokens, "")
    weighed = profile.weighed(facts)
    if weighed is not None:
        likeliest = max(weighed.hypotheses, key=lambda h: h.weight)
        yield _given("ways it may have run", len(weighed.hypotheses), "", f"{profile.assumed}; the likeliest in full:")
        yield from _step(facts, likeliest)
        yield from _call(facts, likeliest)
        yield from _hypotheses(weighed)
        most = profile.ceiling(fresh, output, 0.0) + profile.cached.high * cached
        yield _given("most that was held", most, "J", "the prior's upper end")
        yield from _of_estimate(weighed, most)
        return
    for what, end in _ends(energy.mean, energy.low, energy.high):
        per = what.split()[0]
        o, i, c = (getattr(r, per) for r in (profile.output, profile.input, profile.cached))
        how = f"{output} * {figure(o)} + {fresh} * {figure(i)} + {cached} * {figure(c)}"
        yield Line(what, how, end, "J", profile.assumed)


# GPUs


def _gpu(profile: GpuProfile, facts: CallFacts) -> Iterator[Line]:
    if sum(facts.tokens) == 0:
        yield from (_given(what, 0.0, "J", "no tokens") for what, _ in _ends(0, 0, 0))
        return
    found = profile.weigh(facts)
    likeliest = max(found.hypotheses, key=lambda h: h.weight)
    several = len(found.hypotheses) > 1
    if several:
        yield _given("ways it may have run", len(found.hypotheses), "", "the likeliest of them is derived in full")
    yield from _step(facts, likeliest)
    yield from _call(facts, likeliest)
    if several:
        yield from _hypotheses(found)
        yield from _of_estimate(found, None)
        return
    yield Line("spread", figure(found.spread), found.spread, "", "one way only")
    yield from _interval(found, likeliest.joules.mean, likeliest.joules.low, likeliest.joules.high)


def _step(facts: CallFacts, h: Hypothesis) -> Iterator[Line]:
    profile = h.profile
    s, m, chip, k, n = h.step, profile.shape, profile.chip, profile.fitted.constants, profile.gpus
    fresh, cached, output = facts.tokens
    tokens = max(output, 1)
    model = "the model's config.json" if not m.guessed else "guessed from the model's size"
    yield _given("uncached input tokens", fresh, "")
    yield _given("cached input tokens", cached, "")
    yield _given("output tokens", tokens, "")
    yield _given("batch", s.batch, "sequences")
    yield _given("GPUs", n, "")
    yield _given("active parameters", m.active, "", model)
    yield _given("layers", m.layers, "", model)
    yield _given("K and V a token", m.kv_bytes, "B", model)
    yield _given("chip power", chip.tdp_w, "W", chip.source)
    yield _given("chip bandwidth", chip.bytes_per_s, "B/s", chip.source)
    flops = chip.flops(m.compute_bits)
    yield _given("chip FLOP rate", flops, "FLOP/s", chip.source)
    checked = 1.0 if profile.speculation is None else profile.speculation.drafted + 1.0
    yield Line("weight bytes a step", _weights(profile, s.batch * checked, checked), s.weight_bytes, "B", model)
    context = fresh + cached + tokens / 2
    yield Line("context", f"{fresh} + {cached} + {tokens} / 2", context, "tokens")
    yield Line("tokens attended", _attended(profile, context), m.attended(context), "", model)
    kv = f"{figure(s.batch)} * {figure(m.kv_bytes)} * {figure(m.attended(context))}"
    yield Line("K and V bytes a step", kv, s.kv_bytes, "B")
    attending = m.attention_layers or m.layers
    hidden = (m.active / (12 * m.layers)) ** 0.5
    yield Line("hidden size", f"sqrt({figure(m.active)} / (12 * {m.layers}))", hidden, "", "plain transformer")
    per_token = 2 * m.active + m.attention_flop(context)
    how = f"2 * {figure(m.active)} + 4 * {attending} * {figure(hidden)} * {figure(m.attended(context))}"
    yield Line(
        "FLOP of a new token", how, per_token, "FLOP", "2 a parameter, 4 a layer, hidden value and attended token"
    )
    drafts = (checked - 1) * (0.0 if profile.speculation is None else profile.speculation.draft_b * 1e9)
    how = f"{figure(s.batch)} * ({figure(checked)} * {figure(per_token)} + 2 * {figure(drafts)})"
    yield Line("decode FLOP a step", how, s.decode_flop, "FLOP")
    seen = m.attended(cached + fresh / 2)
    prompt = 2 * m.active + m.attention_flop(cached + fresh / 2)
    yield Line("tokens attended in the prompt", _attended(profile, cached + fresh / 2), seen, "")
    how = f"2 * {figure(m.active)} + 4 * {attending} * {figure(hidden)} * {figure(seen)}"
    yield Line("FLOP of a prompt token", how, prompt, "FLOP")
    how = f"{figure(s.batch)} * {fresh} * {figure(prompt)} / ({tokens} / {figure(s.accepted)})"
    yield Line("prefill FLOP a step", how, s.prefill_flop, "FLOP", "the prompt's, spread over the reply's steps")
    moved = f"({figure(s.weight_bytes)} + {figure(s.kv_bytes)})"
    how = f"{moved} / ({n} * {figure(chip.bytes_per_s)} * {figure(k.memory_efficiency)})"
    yield Line("memory time", how, s.memory_s, "s", _fitted("memory_efficiency"))
    rate = f"({n} * {figure(flops)} * {figure(k.flop_efficiency)})"
    yield Line("decode time", f"{figure(s.decode_flop)} / {rate}", s.decode_s, "s", _fitted("flop_efficiency"))
    yield Line("prefill time", f"{figure(s.prefill_flop)} / {rate}", s.prefill_s, "s")
    how = f"{m.layers} * {figure(k.s_per_layer)} * (1 + {figure(k.slope_per_doubling)} * log2({n}))"
    yield Line("time of layers", how, s.layers_s, "s", _fitted("s_per_layer", "slope_per_doubling"))
    how = f"{figure(s.batch)} * {figure(k.s_per_sequence)}"
    yield Line("time of sequences", how, s.sequences_s, "s", _fitted("s_per_sequence"))
    rest = " + ".join(map(figure, (s.prefill_s, s.layers_s, s.sequences_s)))
    how = f"max({figure(s.memory_s)}, {figure(s.decode_s)}) + {rest}"
    yield Line("busy time", how, s.busy_s, "s")
    yield from _joules(h, facts, flops)


def _joules(h: Hypothesis, facts: CallFacts, flops: float) -> Iterator[Line]:
    profile = h.profile
    s, chip, k, n = h.step, profile.chip, profile.fitted.constants, profile.gpus
    if facts.token_s is not None:
        own = f" + {figure(s.prefill_s)} / {figure(s.batch)}" if facts.step_s is None else ""
        how = f"{figure(facts.token_s)} * {figure(s.accepted)}{own}"
        yield Line("step time", how, s.seconds, "s", "measured seconds between tokens, and the call's own prefill")
    else:
        how = f"{figure(s.busy_s)} + ({figure(h.overhead)} - 1) * ({figure(s.layers_s)} + {figure(s.sequences_s)})"
        engine = f"engine: {profile.engine or 'not known'}; {_fitted('old_engine')}"
        yield Line("step time", how, s.seconds, "s", engine)
    watts = f"{n} * {figure(chip.tdp_w)}"
    busy, taken = figure(s.busy_s), figure(s.seconds)
    waiting = f"{figure(k.stall_power)} * max({taken} - {busy}, 0)"
    how = f"{watts} * ({figure(k.busy_power)} * min({busy}, {taken}) + {waiting})"
    yield Line("static joules", how, s.static_j, "J", _fitted("busy_power", "stall_power"))
    power, moved = figure(chip.tdp_w), f"({figure(s.weight_bytes)} + {figure(s.kv_bytes)})"
    how = f"{power} * {figure(k.byte_power)} * {moved} / {figure(chip.bytes_per_s)}"
    yield Line("joules of bytes", how, s.bytes_j, "J", _fitted("byte_power"))
    how = f"{power} * {figure(k.flop_power)} * ({figure(s.decode_flop)} + {figure(s.prefill_flop)}) / {figure(flops)}"
    yield Line("joules of FLOP", how, s.flop_j, "J", _fitted("flop_power"))
    yield Line("most a step can draw", f"{MOST_POWER} * {watts} * {taken}", s.most_j, "J")
    how = f"min({figure(s.most_j)}, {figure(s.static_j)} + {figure(s.bytes_j)} + {figure(s.flop_j)})"
    yield Line("joules a step", how, s.joules, "J")
    how = f"{figure(s.joules)} / ({figure(s.batch)} * {figure(s.accepted)})"
    yield Line("board joules per output token", how, s.joules_per_token, "J")


def _call(facts: CallFacts, h: Hypothesis) -> Iterator[Line]:
    profile, s, tokens = h.profile, h.step, max(facts.tokens[2], 1)
    boards = s.joules_per_token * tokens
    yield Line("board joules of the call", f"{tokens} * {figure(s.joules_per_token)}", boards, "J")
    gpu_s = profile.gpus * s.token_s * tokens / s.batch
    how = f"{profile.gpus} * {figure(s.seconds)} / {figure(s.accepted)} * {tokens} / {figure(s.batch)}"
    yield Line("GPU seconds of the call", how, gpu_s, "s")
    around: Facility = surroundings(profile.scope, profile.facility)
    source = (
        f"scope {profile.scope}: PUE / efficiency * (boards + host and network W * GPU seconds), published intervals"
    )
    for end, value in (("mean", h.joules.mean), ("low", h.joules.low), ("high", h.joules.high)):
        pue, supply, host = (getattr(r, end) for r in (around.pue, around.supply, around.host_w))
        how = f"{figure(pue)} * {figure(supply)} * ({figure(boards)} + {figure(host)} * {figure(gpu_s)})"
        yield Line(f"{end} constants", how, value, "J", source)


def _hypotheses(found: Estimate) -> Iterator[Line]:
    """One line each: its weight times its joules. Ways that cannot be told from zero are left out."""
    several = len({id(h.profile) for h in found.hypotheses}) > 1
    for h in (h for h in found.hypotheses if h.weight > _SEEN):
        p = h.profile
        size = f"{figure(p.shape.active / 1e9)} B at {figure(8 * p.shape.bytes_per_parameter)} bits"
        where = f"{size} on {p.gpus} x {p.chip.name}, " if several else ""
        what = f"{where}batch {figure(h.step.batch)}, engine x{figure(h.overhead)}"
        yield Line(what, f"{figure(h.weight)} * {figure(h.joules.mean)}", h.weight * h.joules.mean, "J")


def _of_estimate(found: Estimate, most: float | None) -> Iterator[Line]:
    """Mean, middle and interval of several ways, from their weights and joules."""
    ranges = found.hypotheses
    yield _given("geometric mean", found.median, "J", "exp of the weights * logarithms of the joules above")
    yield _given("spread", found.spread, "", "standard deviation of those logarithms")
    yield _given("geometric mean at low constants", _middle(ranges, "low"), "J", "the same with low host, supply, PUE")
    yield _given("geometric mean at high constants", _middle(ranges, "high"), "J", "the same with high ones")
    mean = sum(h.weight * h.joules.mean for h in ranges)
    yield from _interval(found, mean, _middle(ranges, "low"), _middle(ranges, "high"), most)


def _interval(found: Estimate, mean: float, low: float, high: float, most: float | None = None) -> Iterator[Line]:
    how = f"exp({figure(found.width)} * sqrt({figure(found.spread)}^2 + {figure(found.floor)}^2))"
    yield Line(
        "factor of the 90 % interval", how, found.factor, "", f"calibrated on model families held out; {found.tier}"
    )
    factor, limit = figure(found.factor), math.inf if most is None else most
    summed = "sum" if len(found.hypotheses) > 1 else figure(mean)
    for what, how, end in (
        ("mean joules", summed, found.joules.mean),
        ("low joules", f"min({figure(low)} / {factor}, {figure(mean)})", found.joules.low),
        ("high joules", f"max({figure(high)} * {factor}, {figure(mean)})", found.joules.high),
    ):
        yield Line(what, how if most is None else f"min({how}, {figure(most)})", min(end, limit), "J")


def _middle(found: Sequence[Hypothesis], end: str) -> float:
    return math.exp(sum(h.weight * math.log(getattr(h.joules, end)) for h in found))


def _weights(profile: GpuProfile, sequences: float, checked: float) -> str:
    m = profile.shape
    used = m.experts_used / m.experts if m.experts > 1 else m.active / m.total
    drafts = (checked - 1) * (0.0 if profile.speculation is None else profile.speculation.draft_b * 1e9)
    each = figure(m.bytes_per_parameter)
    more = f" + {figure(drafts)} * {each}" if drafts else ""
    if used >= 1.0:
        return f"{figure(m.total)} * {each}{more}"
    experts = max((m.total - m.active) / (1 - used), 0.0)
    dense = max(m.total - experts, 0.02 * m.total)
    return f"{each} * ({figure(dense)} + {figure(experts)} * (1 - {figure(1 - used)}^{figure(sequences)})){more}"


def _attended(profile: GpuProfile, context: float) -> str:
    m = profile.shape
    if m.full_attention >= 1.0:
        return figure(context)
    share = figure(m.full_attention)
    return f"{share} * {figure(context)} + (1 - {share}) * min({figure(context)}, {m.window})"


def _fitted(*names: str) -> str:
    """The names of fitted constants, with the range that each had when half of the runs were fitted."""
    table = constants_table()
    each = [
        f"{name}, {' to '.join(map(figure, table['constants'][name]['half_fits']))} over half fits" for name in names
    ]
    return f"fitted {table['date']} on {table['rows']} runs: {'; '.join(each)}"
