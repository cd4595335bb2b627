"""Responses, the newer dialect, through a real server process by OpenAI's own client: told, stored, gone on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.server.test_chat import TOOL_CALL, USAGE
from tests.servers.api import Api, key
from tests.servers.openai_server import ScriptedServer


@pytest.fixture
def client(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_responses_come_whole_and_with_tools(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [
        {"text": "", "tool_calls": [TOOL_CALL], "finish_reason": "tool_calls", "usage": USAGE},
        {"text": "Sixteen metres.", "usage": USAGE},
    ]})  # fmt: skip
    tool: Any = {"type": "function", "name": "tide", "parameters": {"type": "object", "properties": {}}}
    first = client.responses.create(model="default", instructions="Be short.", input="How high?", tools=[tool])
    (call,) = first.output
    assert call.type == "function_call" and (call.name, call.call_id) == ("tide", "call_1")
    history: Any = [{"role": "user", "content": "How high?"}, call.model_dump(),
                    {"type": "function_call_output", "call_id": call.call_id, "output": "16 m"}]  # fmt: skip
    second = client.responses.create(model="default", input=history, tools=[tool])
    assert second.output_text == "Sixteen metres." and second.status == "completed"
    assert second.usage is not None and second.usage.total_tokens == 150
    assert second.usage.model_dump()["agentflow"]["usd"] == "0.0002"
    assert [m["role"] for m in models.requests()[-1]["body"]["messages"]] == ["user", "assistant", "tool"]


def test_responses_are_streamed_as_their_clients_expect(client: openai.OpenAI, models: ScriptedServer) -> None:
    long = "The tide rises by sixteen metres. " * 6
    models.script({"small": [{"text": long, "tool_calls": [TOOL_CALL], "usage": USAGE}]})
    with client.responses.stream(model="default", input="How high?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == long
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert final.output_text == long and [item.type for item in final.output] == ["message", "function_call"]
