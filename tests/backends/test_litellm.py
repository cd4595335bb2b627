from __future__ import annotations

import pytest

from agentflow.backends.litellm import LiteLLMBackend
from agentflow.errors import BackendError, BackendUnavailable, ContextOverflow, RequestRejected
from agentflow.messages import Message, Request
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer

COUNT = TokenCounter.for_model("gpt-4o").usage
ASK = Request((Message("user", "hello"),), max_output_tokens=50, timeout_s=20)


def backend(server: ScriptedServer, **options: object) -> LiteLLMBackend:
    return LiteLLMBackend("openai/m", COUNT, base_url=server.url, options={"api_key": "none", **options})


async def test_invented_usage_is_not_believed(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"m": [{"text": "Hello world", "omit_usage": True}]})
    completion = await backend(scripted_server).complete("openai/m", ASK)
    assert completion.text == "Hello world"
    assert (completion.usage.input, completion.usage.output) == (8, 2)


@pytest.mark.parametrize(
    ("mock", "error"),
    [("litellm.RateLimitError", BackendUnavailable), ("litellm.ContextWindowExceededError", ContextOverflow)],
)
async def test_its_exceptions_become_ours(
    scripted_server: ScriptedServer, mock: str, error: type[BackendError]
) -> None:
    with pytest.raises(error):
        await backend(scripted_server, mock_response=mock).complete("openai/m", ASK)


async def test_a_server_is_asked_once_and_never_again(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"m": [{"status": 500}]})
    with pytest.raises(BackendError):
        await backend(scripted_server).complete("openai/m", ASK)
    assert len(scripted_server.requests()) == 1
    scripted_server.script({"m": [{"status": 401}]})
    with pytest.raises(RequestRejected, match="key"):
        await backend(scripted_server).complete("openai/m", ASK)


async def test_a_key_that_is_not_set_is_not_reachable() -> None:
    probe = await LiteLLMBackend("openai/m", COUNT, api_key_env="SURELY_NOT_SET").probe()
    assert not probe.reachable
    assert "SURELY_NOT_SET" in probe.detail
