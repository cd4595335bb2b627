"""Responses, the newer dialect, through a real server process by OpenAI's own client: told, stored, gone on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.server.test_chat import TOOL_CALL, USAGE
from tests.servers.api import Api, toml
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


def test_a_stored_response_is_read_again_and_gone_on_from(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": text, "usage": USAGE} for text in ("Sixteen metres.", "The moon.", "Fundy.")]})
    first = client.responses.create(
        model="small", input="How high is the tide?", instructions="Be short.", metadata={"a": "b"}
    )
    assert client.responses.retrieve(first.id).model_dump() == first.model_dump() and first.store is True  # type: ignore[attr-defined]
    second = client.responses.create(model="small", input="Why?", previous_response_id=first.id)
    asked = models.requests()[-1]["body"]["messages"]
    assert [(m["role"], m["content"]) for m in asked] == [
        ("user", "How high is the tide?"), ("assistant", "Sixteen metres."), ("user", "Why?"),
    ], "the instructions of one response are not those of the next"  # fmt: skip
    with client.responses.stream(model="small", input="Where?", previous_response_id=second.id) as stream:
        third = stream.get_final_response()
    asked = models.requests()[-1]["body"]["messages"]
    assert [m["content"] for m in asked] == [
        "How high is the tide?", "Sixteen metres.", "Why?", "The moon.", "Where?",
    ]  # fmt: skip
    assert client.responses.retrieve(third.id).output_text == "Fundy."
    assert third.previous_response_id == second.id


def test_the_turns_before_a_response_are_listed_in_pages(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE}]})
    first = client.responses.create(model="small", input="How high is the tide?")
    second = client.responses.create(
        model="small", input=[{"role": "user", "content": "Why?"}], previous_response_id=first.id
    )
    items = client.responses.input_items.list(second.id, order="asc", limit=2)
    told = [item.model_dump()["content"][0]["text"] for item in items]
    assert told == ["How high is the tide?", "Sixteen metres.", "Why?"], "the client follows the pages by itself"
    newest = client.responses.input_items.list(second.id).data[0]
    assert newest.model_dump(exclude_none=True)["content"] == [{"type": "input_text", "text": "Why?"}]
    with pytest.raises(openai.BadRequestError, match="after"):
        client.responses.input_items.list(second.id, after="msg_0")


def test_tools_go_on_from_a_stored_response(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [
        {"text": "", "tool_calls": [TOOL_CALL], "finish_reason": "tool_calls", "usage": USAGE},
        {"text": "Sixteen metres.", "usage": USAGE},
    ]})  # fmt: skip
    tool: Any = {"type": "function", "name": "tide", "parameters": {"type": "object", "properties": {}}}
    first = client.responses.create(model="small", input="How high?", tools=[tool])
    client.responses.create(
        model="small", tools=[tool], previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": "call_1", "output": "16 m"}],
    )  # fmt: skip
    asked = models.requests()[-1]["body"]["messages"]
    assert [m["role"] for m in asked] == ["user", "assistant", "tool"]
    assert asked[1]["tool_calls"][0]["id"] == asked[2]["tool_call_id"] == "call_1"


def test_what_is_not_stored_or_was_deleted_is_gone(client: openai.OpenAI, models: ScriptedServer, folder: Path) -> None:
    secret = "kelp-forest-8841"
    models.script({"small": [{"text": f"It is {secret}.", "usage": USAGE}]})
    unkept = client.responses.create(model="small", input=f"Say {secret}.", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)
    client.chat.completions.create(model="small", messages=[{"role": "user", "content": f"Say {secret}."}])
    assert secret.encode() not in on_disk(folder), "neither the server nor the ledger keeps what need not be kept"

    kept = client.responses.create(model="small", input=f"Say {secret}.")
    after = client.responses.create(model="small", input="And again.", previous_response_id=kept.id)
    assert secret.encode() in on_disk(folder)
    with httpx.Client(base_url=str(client.base_url)) as http:
        gone = http.delete(f"responses/{kept.id}")
    assert gone.json() == {"id": kept.id, "object": "response", "deleted": True}
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            ask(kept.id)
    with pytest.raises(openai.NotFoundError, match=kept.id):
        client.responses.create(model="small", input="Once more.", previous_response_id=after.id)


def test_only_what_is_in_the_background_can_be_followed_or_cancelled(
    client: openai.OpenAI, models: ScriptedServer
) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE}]})
    done = client.responses.create(model="small", input="How high?")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(done.id)
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.retrieve(done.id, stream=True)


def test_a_response_that_is_cut_says_so(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "Sixteen", "finish_reason": "length", "usage": USAGE}]})
    cut = client.responses.create(model="small", input="How high?", max_output_tokens=16)
    assert cut.status == "incomplete" and cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    with client.responses.stream(model="small", input="How high?") as stream:
        assert [event.type for event in stream][-1] == "response.incomplete"


def test_old_responses_are_let_go_of(models: ScriptedServer, tmp_path: Path) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE}]})
    (tmp_path / "agentflow.toml").write_text(toml(models, "[server]\nkeep_responses_days = 0.00000001\n"))
    server = Api(tmp_path)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        old = client.responses.create(model="small", input="How high?").id
        client.responses.retrieve(old)
    server.kill()
    server = Api(tmp_path)
    try:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError):
                for _ in range(2_000):
                    client.responses.retrieve(old)
    finally:
        server.kill()


def on_disk(folder: Path) -> bytes:
    """Everything that lies in a server's folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
