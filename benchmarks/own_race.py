"""agentflow in the race that its peers run: a budget for ten calls, and N callers at once on one chain.

The call, the server, its delay and the callers are those of ``overspend``. The budget is ten times what one call is
held for, in every currency at once; what the server answered is what would have been billed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agentflow.backends.openai_http import OpenAIBackend
from agentflow.budget.budget import Budget
from agentflow.budget.currency import COUNTED
from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import Price
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.policy import Policy
from agentflow.cascade.rung import ModelRung
from agentflow.chain import Chain
from agentflow.energy.profiles import RemotePrior
from agentflow.errors import BudgetExceeded
from agentflow.messages import Message, Request
from agentflow.tokens import TokenCounter
from benchmarks.overspend import DELAY_S
from benchmarks.peers.asking import BUDGET_CALLS, MODEL, OUTPUT_TOKENS, PROMPT, ask
from tests.servers.openai_server import ScriptedServer, ServerProcess

USABLE = 0.95


@dataclass(frozen=True, slots=True)
class OwnRace:
    """How a race ended: calls that the server answered, and what was spent of each limit."""

    at_once: int
    admitted: int
    ratios: dict[str, float]

    @property
    def spent_ratio(self) -> float:
        """Spent over limit, in the currency that came nearest to its limit."""
        return max(self.ratios.values())

    @property
    def passed(self) -> bool:
        """Whether no limit was passed, and the tightest could be used nearly whole."""
        return USABLE <= self.spent_ratio <= 1.0


async def own_race(at_once: int) -> OwnRace:
    """Race one chain with limits in tokens, dollars, joules, grams and calls."""
    process = await asyncio.to_thread(ServerProcess, "tests.servers.openai_server")
    server = ScriptedServer(process)
    counter = TokenCounter.for_model(MODEL)
    request = Request((Message("user", PROMPT),), max_output_tokens=OUTPUT_TOKENS)
    backend = OpenAIBackend(server.url, counter.usage, retries=0)
    rung = ModelRung(
        MODEL, backend, MODEL, Price.per_million("1", "1", source="benchmark"), RemotePrior(), counter, timeout_s=300.0
    )
    usage = {"prompt_tokens": counter.prompt(request), "completion_tokens": OUTPUT_TOKENS}
    script = {"*": [{"text": "This.", "usage": usage, "delay": DELAY_S}]}
    await asyncio.to_thread(server.script, script)
    one = rung.quote(request)
    limits = Budget(
        tokens=BUDGET_CALLS * one.tokens,
        usd=f"{BUDGET_CALLS * one.nano_usd / 10**9:.9f}",
        joules=BUDGET_CALLS * one.microjoules / 10**6,
        grams_co2e=BUDGET_CALLS * one.micrograms / 10**6,
        calls=BUDGET_CALLS,
    )
    meter = Meter("race", limits)
    # A reply that is shortened to what is left would still be billed whole by this server.
    cascade = Cascade("race", (rung,), Policy(min_output=OUTPUT_TOKENS))
    chain = Chain(meter, cascade, MemoryLedger())
    try:
        await ask(lambda: chain.call(request), lambda error: isinstance(error, BudgetExceeded), at_once)
        admitted = len(await asyncio.to_thread(server.requests))
    finally:
        await backend.aclose()
        process.stop()
    spent = meter.spent.amounts
    ratios = {
        currency: spent[place] / limit
        for place, (currency, limit) in enumerate(zip(COUNTED, meter.limits, strict=True))
        if limit
    }
    return OwnRace(at_once, admitted, ratios)
