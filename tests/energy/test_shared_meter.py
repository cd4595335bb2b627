"""Counters' joules shared among calls: nothing is lost, nothing is given twice, what is not known is not made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.backends.measured import MeasuredBackend
from agentflow.budget.prices import Price
from agentflow.cascade.rung import ModelRung
from agentflow.config import ModelSettings, Settings
from agentflow.energy.probes.counter import CounterFacts, Reading
from agentflow.energy.profiles import CpuProfile
from agentflow.energy.shared_meter import SharedMeter
from agentflow.errors import CounterLost
from agentflow.messages import Completion, Delta, Message, Request, Timings, TokenUsage
from agentflow.runtime import Runtime
from agentflow.tokens import TokenCounter
from tests.conftest import RUNGS


class Made:
    """A counter of a device that draws ``watts`` on a clock that the test turns."""

    def __init__(self, watts: float = 10.0, **facts: object) -> None:
        self.now = 100.0
        self.watts = watts
        self.counted = 5_000_000.0
        self.broken = False
        self.facts = replace(CounterFacts("made", "a device", "board", low=0.9, high=1.1), **facts)  # type: ignore[arg-type]

    def clock(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.counted += self.watts * seconds * 1e6

    def read(self) -> Reading:
        if self.broken:
            raise CounterLost("gone")
        return Reading(self.counted, self.now)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def device() -> Made:
    return Made()


@pytest.fixture
def meter(device: Made) -> Iterator[SharedMeter]:
    it = SharedMeter([device], clock=device.clock)
    yield it
    it.close()


async def test_a_call_that_had_the_machine_to_itself_is_measured(device: Made, meter: SharedMeter) -> None:
    async with meter.measuring() as call:
        device.pass_time(2.0)
    assert call.energy is not None
    assert (call.energy.mean, call.energy.provenance, call.energy.scope) == (pytest.approx(20.0), "measured", "board")
    assert call.energy.low < 20.0 < call.energy.high


async def test_calls_side_by_side_share_by_time_and_weight_and_a_share_is_modelled(
    device: Made, meter: SharedMeter
) -> None:
    async with meter.measuring(weight=1.0) as one:
        device.pass_time(1.0)
        async with meter.measuring(weight=3.0) as two:
            device.pass_time(2.0)
        device.pass_time(1.0)
    assert one.energy is not None and two.energy is not None
    assert (one.energy.mean, two.energy.mean) == (pytest.approx(10 + 5 + 10), pytest.approx(15))
    assert (one.energy.provenance, two.energy.provenance) == ("modelled", "modelled")
    assert meter.shared.counted == meter.shared.given + meter.shared.idle == 40_000_000


async def test_what_is_idle_goes_to_nobody(device: Made, meter: SharedMeter) -> None:
    device.watts = 4.0
    for _ in range(3):
        device.pass_time(1.0)
        async with meter.measuring():
            pass
    device.watts = 10.0
    async with meter.measuring() as call:
        device.pass_time(2.0)
    assert call.energy is not None and call.energy.mean == pytest.approx(12.0)
    assert meter.shared.idle == 3 * 4_000_000 + 2 * 4_000_000


async def test_a_counter_that_is_lost_or_too_slow_leaves_the_call_unmeasured() -> None:
    device = Made()
    meter = SharedMeter([device], clock=device.clock)
    async with meter.measuring() as call:
        device.pass_time(1.0)
        device.broken = True
    assert call.energy is None
    meter.close()
    slow = Made(shortest_s=1.0)
    meter = SharedMeter([slow], clock=slow.clock)
    async with meter.measuring() as short:
        slow.pass_time(0.4)
    async with meter.measuring() as longer:
        slow.pass_time(1.2)
    assert short.energy is None
    assert longer.energy is not None and longer.energy.mean == pytest.approx(12.0 + 4.0)
    meter.close()


moves = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "pass"]), st.floats(0.0, 2.5), st.floats(0.5, 8)), max_size=25
)


@given(moves, st.floats(0.1, 200))
async def test_in_any_order_what_was_counted_is_given_or_idle_to_the_microjoule(
    moves: list[tuple[str, float, float]], watts: float
) -> None:
    device = Made(watts)
    meter = SharedMeter([device], clock=device.clock)
    open_: list[AsyncExitStack] = []
    calls = []
    for move, seconds, weight in moves:
        if move == "begin":
            stack = AsyncExitStack()
            calls.append(await stack.enter_async_context(meter.measuring(weight)))
            open_.append(stack)
        elif move == "end" and open_:
            await open_.pop(0).aclose()
        else:
            device.pass_time(seconds)
    for stack in open_:
        await stack.aclose()
    shared = meter.shared
    assert shared.counted == shared.given + shared.idle
    known = sum(call.energy.mean for call in calls if call.energy is not None)
    assert known * 1e6 <= shared.given + 1
    meter.close()


async def test_a_model_in_this_process_is_charged_what_was_measured(device: Made, meter: SharedMeter) -> None:
    class Working:
        provider, in_process = "made", True

        async def complete(
            self, model: str, request: Request, tell: Callable[[Delta], None] | None = None
        ) -> Completion:
            device.pass_time(3.0)
            return Completion("4", model, TokenUsage(5, 1), Timings(3.0, cpu_s=3.0))

        async def probe(self) -> object: ...
        async def aclose(self) -> None: ...

    backend = MeasuredBackend(Working(), meter)  # type: ignore[arg-type]
    rung = ModelRung("m", backend, "m", Price.per_million("0", "0", source="test"), CpuProfile(),
                     TokenCounter.for_model("m"))  # fmt: skip
    energy = rung.spend(await backend.complete("m", Request((Message("user", "2+2"),)))).energy
    assert (energy.mean, energy.provenance) == (pytest.approx(30.0), "measured")


async def test_a_real_local_model_is_measured_by_whatever_this_machine_has(here: Path) -> None:
    pytest.importorskip("xllamacpp")
    model = ModelSettings(backend="llamacpp", path=RUNGS / "large.gguf", context=256, measure=True, default_output=32)
    runtime = Runtime(Settings.model_validate({"models": {"large": model.model_dump()}}))
    async with runtime.chain("sums") as chain:
        for question in ("3+4", "12+7"):
            reply = await chain.call(question)
            assert reply.spend.energy.high > 0
    await runtime.aclose()
