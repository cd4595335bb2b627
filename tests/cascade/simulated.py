"""Rungs whose backend is a function of virtual time: what a test says it does, in seconds that pass at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agentflow.backends.base import Probe
from agentflow.budget.budget import Budget
from agentflow.budget.ledger import EntryFilter, MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import Price
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.lane import Lane, LaneLimits
from agentflow.cascade.policy import Policy
from agentflow.cascade.rung import CodeRung, ModelRung
from agentflow.chain import Chain
from agentflow.energy.profiles import RemotePrior
from agentflow.messages import Completion, Delta, Request, Timings, TokenUsage
from agentflow.tokens import TokenCounter
from tests.virtual_time import now

COUNTER = TokenCounter.for_model("gpt-4o")
PRICE = Price.per_million("1", "1", source="test")
Tell = Callable[[Delta], None] | None


@dataclass
class Simulated:
    """A backend that takes the seconds it is told to: each call's until its first token, then ``decode_s`` more."""

    first_token_s: Callable[[], float | Exception]
    decode_s: float = 0.0
    text: str = "reply"
    provider: str = "simulated"
    in_process: bool = False
    asked: list[float] = field(default_factory=list)
    cancelled: list[float] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def complete(self, model: str, request: Request, tell: Tell = None) -> Completion:
        started = now()
        self.asked.append(started)
        self.running += 1
        self.most = max(self.most, self.running)
        first = self.first_token_s()
        try:
            if isinstance(first, Exception):
                raise first
            await asyncio.sleep(first)
            if tell is not None:
                tell(Delta(self.text))
            await asyncio.sleep(self.decode_s)
        except asyncio.CancelledError:
            self.cancelled.append(now())
            raise
        finally:
            self.running -= 1
        usage = TokenUsage(10, 5, source="server")
        return Completion(self.text, model, usage, Timings(now() - started, first))

    async def probe(self) -> Probe:
        return Probe(True, "simulated")

    async def aclose(self) -> None:
        pass


def simulated(name: str, backend: Simulated, limits: LaneLimits | None = None, **more: object) -> ModelRung:
    facts: dict[str, object] = {"default_output": 100, "timeout_s": 60.0, "lane": Lane(limits, now), **more}
    return ModelRung(name, backend, name, PRICE, RemotePrior(), COUNTER, **facts)  # type: ignore[arg-type]


def replies(*seconds: float | Exception) -> Callable[[], float | Exception]:
    """First tokens after these seconds, one call after the other; the last repeats."""
    left = list(seconds)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def chain(*rungs: ModelRung | CodeRung, budget: Budget | None = None, ledger: MemoryLedger | None = None) -> Chain:
    return Chain(Meter("chain", budget, clock=now), Cascade("test", rungs, Policy()), ledger or MemoryLedger())


async def nothing_is_held(chain: Chain) -> None:
    """However calls ended: no hold open, in the tree or in the ledger; every lane empty, every entry over."""
    assert chain.meter.statistics().open_holds == 0
    assert set(chain.meter.statistics().held) == {0}
    for entry in await chain._ledger.entries(EntryFilter()):
        assert entry.state != "held", entry
    for state in await chain._ledger.accounts():
        assert set(state.account.held) == {0}
    for rung in chain.cascade.rungs:
        if isinstance(rung, ModelRung):
            for lane in {rung.lane, (rung.hedge_with or rung).lane}:
                assert (lane.state().in_flight, lane.state().waiting) == (0, 0)
                assert not lane.breaker.probing


Story = Callable[[], Awaitable[None]]
