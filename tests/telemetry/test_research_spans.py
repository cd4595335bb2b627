"""The research job in a trace: one tree from the job down to the attempts, with usage on the attempts alone."""

from __future__ import annotations

from pathlib import Path

from agentflow import Flow, Settings
from agentflow.telemetry import semconv
from tests.conftest import PROJECT
from tests.servers.openai_server import ScriptedServer
from tests.telemetry.conftest import Recorded


async def test_a_research_job_is_one_tree_of_agents_calls_and_attempts(
    here: Path, scripted_server: ScriptedServer, recorded: Recorded
) -> None:
    scripted_server.script({"small": [{"responder": "planning"}, {"responder": "quoting"}]})
    model = {"backend": "openai", "base_url": scripted_server.url, "price": {"input": 1, "output": 2}}
    async with Flow(Settings.model_validate({"models": {"small": model}})) as flow:
        report = await flow.research("How does agentflow keep a chain from overspending?", [PROJECT / "docs"])
    spans = recorded.finished()
    (root,) = [span for span in spans if span.parent is None]
    assert root.name == "invoke_workflow research"
    assert {span.context.trace_id for span in spans if span.context} == {root.context.trace_id if root.context else 0}
    names = {span.name for span in spans}
    assert {
        "invoke_agent planner",
        "invoke_agent retrieval",
        "invoke_agent synthesis",
        "call plan",
        "call synthesise",
    } <= names
    chats = [span for span in spans if span.name == "chat small"]
    assert len(chats) == 2
    used = sum(int(str((span.attributes or {})[semconv.USAGE_INPUT_TOKENS])) for span in chats)
    assert used == report.meter.total.input_tokens
    for span in spans:
        attributes = span.attributes or {}
        assert attributes[semconv.CONVERSATION_ID] == report.job
        assert (semconv.USAGE_INPUT_TOKENS in attributes) == (span.name == "chat small")
        assert "overspending" not in str(attributes), "what was asked is not recorded unless it is asked for"
