from __future__ import annotations

from pydantic import BaseModel

from agentflow.backends.openai_http import OpenAIBackend
from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import Price
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.rung import Answer, CodeRung, ModelRung
from agentflow.chain import Chain
from agentflow.energy.profiles import CpuProfile, RemotePrior
from agentflow.telemetry import semconv as names
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer
from tests.telemetry.conftest import Recorded


class Sum(BaseModel):
    total: int


async def test_a_call_that_escalates_leaves_one_span_an_attempt_below_its_own(
    recorded: Recorded, scripted_server: ScriptedServer
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    scripted_server.script({"small": [{"json": {"total": 4}, "usage": usage}]})
    counter = TokenCounter.for_model("gpt-4o")
    backend = OpenAIBackend(scripted_server.url, counter.usage, retries=0)
    small = ModelRung("cheap", backend, "small", Price.per_million("1", "4", source="test"), RemotePrior(), counter)
    unsure = CodeRung("code", lambda _: Answer(Sum(total=5), 0.5), CpuProfile())
    chain = Chain(Meter("chain"), Cascade("test", (unsure, small)), MemoryLedger())
    async with chain:
        reply = await chain.call("What is 2 + 2?", output=Sum, name="sum")
    await backend.aclose()

    spans = recorded.spans()
    assert set(spans) == {"call sum", "code code", "chat small"}
    call = spans["call sum"].context
    assert spans["code code"].parent == spans["chat small"].parent == call
    chat = recorded.attributes("chat small")
    assert chat[names.ESCALATION_REASON] == "confidence 0.50 is below 0.70"
    assert (chat[names.ATTEMPT_NUMBER], chat[names.RUNG_NAME]) == (2, "cheap")
    assert (chat[names.USAGE_INPUT_TOKENS], chat[names.USAGE_OUTPUT_TOKENS]) == (100, 10)
    assert chat[names.COST_AMOUNT] == reply.attempts[1].spend.nano_usd / 1e9 == 0.00014
    assert recorded.attributes("call sum")[names.RUNG_NAME] == "cheap"
