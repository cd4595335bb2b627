"""Two calls of one agent share the longest prefix that they can: all that is fixed stands before all that is not."""

from __future__ import annotations

import json

from agentflow.backends.wire import request_json
from agentflow.budget.ledger import Labels, MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.report import spend_report
from agentflow.cascade.cascade import Cascade
from agentflow.chain import Chain
from agentflow.messages import Message, Request, ToolSpec
from agentflow.research.corpus import Corpus
from agentflow.research.evidence import Evidence
from agentflow.research.planning import Planning, planning_request
from agentflow.research.retrieval import Bm25Index
from agentflow.research.synthesis import Synthesis, synthesis_request
from tests.cascade.test_cascade import _backends_are_closed, rung
from tests.research.made import made_source
from tests.servers.openai_server import ScriptedServer

__all__ = ["_backends_are_closed"]
INSTRUCTIONS = "You are an agent with long instructions. " * 20


def prompt(request: Request) -> str:
    """The prompt's text in the order in which every chat template writes it."""
    return "".join(f"<{message.role}>{message.content}" for message in request.messages)


def shared_prefix(one: str, other: str) -> str:
    return one[: next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))]


def synthesis(text: str, question: str) -> str:
    index = Bm25Index.build(Corpus.build([made_source(text)]))
    evidence = Evidence.gather(question, (question,), [index.search(question, 5)], 10)
    return prompt(synthesis_request(INSTRUCTIONS, Synthesis(evidence, index.lexicon, 0.6)))


def test_planning_prompts_differ_from_the_question_on_and_nothing_fixed_follows_it() -> None:
    one, other = (
        prompt(planning_request(INSTRUCTIONS, Planning(question, 4))) for question in ("How high?", "Why wide?")
    )
    shared = shared_prefix(one, other)
    assert one == f"{shared}How high?"
    assert other == f"{shared}Why wide?"


def test_synthesis_prompts_differ_from_the_first_passage_on() -> None:
    one = synthesis("The tide rises by sixteen metres.", "How high does the tide rise?")
    other = synthesis("A sponge cake is made of eggs.", "What is a sponge cake made of?")
    shared = shared_prefix(one, other)
    assert len(shared) > len(INSTRUCTIONS)
    assert one.removeprefix(shared).startswith("The tide rises")
    assert "JSON" not in one.removeprefix(shared)


async def test_tools_and_schema_are_written_in_one_order_whatever_order_they_came_in(
    scripted_server: ScriptedServer,
) -> None:
    tools = [ToolSpec(name, "does", {"type": "object", "properties": {"b": {}, "a": {}}}) for name in ("z", "a", "m")]
    it = Chain(Meter("chain"), Cascade("test", (rung(scripted_server, "small"),)), MemoryLedger())
    for order in (tools, tools[::-1]):
        await it.call(Request((Message("user", "Hi"),), tools=tuple(order)))
    one, other = (json.dumps(asked["body"]["tools"]) for asked in scripted_server.requests())
    assert one == other
    assert request_json("m", Request((Message("user", "Hi"),), tools=tuple(tools)))["tools"][0]["function"]


async def test_the_share_of_the_prompt_that_a_provider_read_from_its_cache_is_reported(
    scripted_server: ScriptedServer,
) -> None:
    usage = {"prompt_tokens": 1_000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 900}}
    scripted_server.script({"small": [{"text": "a", "usage": {**usage, "prompt_tokens_details": {}}},
                                      {"text": "b", "usage": usage}]})  # fmt: skip
    ledger = MemoryLedger()
    cascade = Cascade("test", (rung(scripted_server, "small"),))
    it = Chain(Meter("chain"), cascade, ledger, labels=Labels(agent="planner"))
    await it.call("one")
    await it.call("two")
    for by in ("agent", "model"):
        (line,) = spend_report(await ledger.entries(), by=by).lines  # type: ignore[arg-type]
        assert (line.group, line.cache_hits) == ("planner" if by == "agent" else "small", 0.45)
