from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from typing import Any

import pytest

from agentflow.backends.litellm import LiteLLMBackend
from agentflow.backends.litellm_errors import mapped
from agentflow.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BadReply,
    ConnectionDropped,
    ContextOverflow,
    RequestRejected,
)
from agentflow.messages import Message, OutputSchema, Request, ToolCall, ToolSpec
from agentflow.tokens import TokenCounter
from tests.conftest import PROJECT
from tests.servers.openai_server import ScriptedServer

COUNT = TokenCounter.for_model("gpt-4o").usage
ASK = Request((Message("user", "hello"),), max_output_tokens=50, timeout_s=20)
KEY = "my-own-key-12345678"


def backend(server: ScriptedServer, model: str = "openai/m", **options: object) -> LiteLLMBackend:
    return LiteLLMBackend(model, COUNT, base_url=server.url, options={"api_key": "none", **options})


async def test_invented_usage_is_not_believed(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"m": [{"text": "Hello world", "omit_usage": True}]})
    completion = await backend(scripted_server).complete("openai/m", ASK)
    assert completion.text == "Hello world"
    assert completion.usage == COUNT(ASK, "Hello world")
    assert completion.usage.source == "tokenizer"


async def test_calls_of_tools_are_counted_where_no_usage_is_sent(scripted_server: ScriptedServer) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": "tides of Fundy"}'}}
    scripted_server.script({"m": [{"tool_calls": [call], "omit_usage": True, "finish_reason": "tool_calls"}]})
    completion = await backend(scripted_server).complete("openai/m", ASK)
    assert completion.tool_calls == (ToolCall("1", "search", '{"q": "tides of Fundy"}'),)
    assert completion.usage.output > 5


@pytest.mark.parametrize(
    ("mock", "error"),
    [("litellm.RateLimitError", BackendUnavailable), ("litellm.ContextWindowExceededError", ContextOverflow)],
)
async def test_its_exceptions_become_ours(
    scripted_server: ScriptedServer, mock: str, error: type[BackendError]
) -> None:
    with pytest.raises(error):
        await backend(scripted_server, mock_response=mock).complete("openai/m", ASK)


def test_every_exception_it_has_becomes_one_of_ours_without_the_key() -> None:
    import litellm.exceptions

    kinds = [kind for _, kind in inspect.getmembers(litellm.exceptions, inspect.isclass) if _is_its_own(kind)]
    assert len(kinds) > 20
    for kind in kinds:
        error: Any = kind.__new__(kind)
        error.message = f"litellm.{kind.__name__}: refused, for key {KEY} and Bearer abcdefghijkl"
        error.args = (error.message,)
        error.status_code = 400
        ours = mapped(error, "openai", "openai/m", (KEY,))
        assert isinstance(ours, BackendError)
        assert KEY not in str(ours)
        assert "abcdefgh" not in str(ours)
        assert kind.__name__ in str(ours)


def _is_its_own(kind: type) -> bool:
    return issubclass(kind, Exception) and kind.__module__.startswith("litellm")


@pytest.mark.parametrize(
    ("step", "error", "sent"),
    [
        ({"status": 400}, RequestRejected, False),
        ({"status": 400, "error": {"error": {"message": "maximum context length is 10"}}}, ContextOverflow, False),
        ({"status": 401}, RequestRejected, False),
        ({"status": 402}, RequestRejected, False),
        ({"status": 403}, RequestRejected, False),
        ({"status": 404}, RequestRejected, False),
        ({"status": 422}, RequestRejected, False),
        ({"status": 429, "retry_after": 7}, BackendUnavailable, False),
        ({"status": 503}, BackendUnavailable, False),
        ({"status": 500}, BackendError, True),
        ({"status": 502}, ConnectionDropped, True),
        ({"status": 504}, BackendError, True),
        ({"status": 408}, BackendTimeout, True),
        ({"text": "x" * 200, "drop_after": 2}, ConnectionDropped, True),
        ({"garbage": "this is no stream"}, BadReply, True),
    ],
)
async def test_each_failure_says_whether_it_may_have_cost(
    scripted_server: ScriptedServer, step: dict[str, object], error: type[BackendError], sent: bool
) -> None:
    scripted_server.script({"m": [step]})
    with pytest.raises(error) as failure:
        await backend(scripted_server).complete("openai/m", ASK)
    assert failure.value.sent is sent
    assert len(scripted_server.requests()) == 1
    if isinstance(failure.value, BackendUnavailable) and "retry_after" in step:
        assert failure.value.retry_after_s == 7


async def test_a_server_that_is_not_there_has_cost_nothing() -> None:
    gone = LiteLLMBackend("openai/m", COUNT, base_url="http://127.0.0.1:9/v1", options={"api_key": "none"})
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        await gone.complete("openai/m", ASK)


async def test_the_key_is_sent_and_not_told(scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PROVIDER", KEY)
    scripted_server.script({"m": [{"status": 400, "error": {"error": {"message": f"no such model, key {KEY}"}}}]})
    asked = LiteLLMBackend("openai/m", COUNT, base_url=scripted_server.url, api_key_env="MY_PROVIDER")
    with pytest.raises(RequestRejected, match="no such model, key …"):
        await asked.complete("openai/m", ASK)
    assert scripted_server.requests()[0]["headers"]["Authorization"] == f"Bearer {KEY}"


async def test_a_refused_key_is_told_with_its_remedy(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"m": [{"status": 401}]})
    with pytest.raises(RequestRejected, match="api_key_env"):
        await backend(scripted_server).complete("openai/m", ASK)


async def test_a_server_is_asked_once_and_never_again(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"m": [{"status": 500}]})
    with pytest.raises(BackendError):
        await backend(scripted_server).complete("openai/m", ASK)
    assert len(scripted_server.requests()) == 1


async def test_tools_schema_and_stops_are_passed_on(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"m": [{"json": {"sum": 12}}]})
    schema = OutputSchema("sum", {"type": "object", "properties": {"sum": {"type": "integer"}}})
    tool = ToolSpec("add", "Adds.", {"type": "object", "properties": {}})
    request = replace(ASK, schema=schema, tools=(tool,), stop=("END",), seed=7)
    completion = await backend(scripted_server).complete("openai/m", request)
    body = scripted_server.requests()[0]["body"]
    assert json.loads(completion.text) == {"sum": 12}
    assert body["tools"][0]["function"]["name"] == "add"
    assert body["response_format"]["json_schema"]["name"] == "sum"
    assert (body["stop"], body["seed"], body["max_tokens"]) == (["END"], 7, 50)
    assert completion.ignored == ()


async def test_what_a_provider_does_not_know_is_told_as_ignored(scripted_server: ScriptedServer) -> None:
    tool = ToolSpec("add", "Adds.", {"type": "object", "properties": {}})
    request = replace(ASK, seed=7, logprobs=True, tools=(tool,), priority=1, cache_salt="tenant")
    scripted_server.script({"*": [{"text": "hello"}]})
    completion = await backend(scripted_server, "perplexity/sonar").complete("perplexity/sonar", request)
    assert set(completion.ignored) == {"seed", "logprobs", "tools", "priority", "cache_salt"}
    assert not {"seed", "logprobs", "tools"} & scripted_server.requests()[0]["body"].keys()
    plain = await backend(scripted_server, "perplexity/sonar").complete("perplexity/sonar", ASK)
    assert plain.ignored == ()


async def test_a_key_that_is_not_set_is_not_reachable() -> None:
    probe = await LiteLLMBackend("openai/m", COUNT, api_key_env="SURELY_NOT_SET").probe()
    assert not probe.reachable
    assert "SURELY_NOT_SET" in probe.detail


def test_one_process_may_run_one_loop_after_another(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"m": [{"text": "hello"}]})
    for _ in range(2):
        assert asyncio.run(backend(scripted_server).complete("openai/m", ASK)).text == "hello"


def test_it_is_imported_by_the_first_call_and_opens_no_connection_of_its_own(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"m": [{"text": "hello"}]})
    script = f"""
        import asyncio, os, sys
        reached = []
        def watch(name, args):
            if name in ("socket.connect", "socket.getaddrinfo"):
                reached.append(args)
        sys.addaudithook(watch)
        import agentflow
        from agentflow.backends import make_backend
        from agentflow.config import ModelSettings
        from agentflow.messages import Message, Request
        from agentflow.tokens import TokenCounter
        url = "{scripted_server.url}"
        facts = ModelSettings(backend="litellm", model="openai/m", base_url=url, api_key_env="A_KEY")
        os.environ["A_KEY"] = "none"
        backend = make_backend("m", facts, TokenCounter.for_model("m").usage)
        asyncio.run(backend.probe())
        assert "litellm" not in sys.modules, "imported before it is used"
        assert not reached, reached
        from agentflow.backends.litellm import _import_litellm
        _import_litellm()
        assert "litellm" in sys.modules
        assert not reached, reached
        reply = asyncio.run(backend.complete("openai/m", Request((Message("user", "hello"),), timeout_s=30)))
        addresses = {{str(args[1] if not isinstance(args[0], str) else args[0]) for args in reached}}
        assert all("127.0.0.1" in address for address in addresses), addresses
        print(reply.text)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=PROJECT, timeout=50
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "hello"
