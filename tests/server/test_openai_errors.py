"""Which of its errors OpenAI's client raises for what: by status, with its code, and when to come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.test_chat import ASK, USAGE
from tests.servers.api import Api, key, toml
from tests.servers.openai_server import ScriptedServer


@pytest.fixture(scope="module")
def folder(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors")
    (folder / "agentflow.toml").write_text(toml(models))
    key(folder, "first")
    return folder


def client_of(api: Api, token: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{api.url}/v1", api_key=token, **{"max_retries": 0, **more})


ASKS: list[Callable[[openai.OpenAI], Any]] = [
    lambda client: client.chat.completions.create(model="small", messages=ASK),
    lambda client: client.chat.completions.create(model="small", messages=ASK, stream=True),
    lambda client: client.responses.create(model="small", input="How high?"),
    lambda client: client.responses.create(model="small", input="How high?", stream=True),
    lambda client: client.responses.create(model="small", input="How high?", background=True),
]


@pytest.mark.parametrize("ask", ASKS)
def test_no_good_key_and_a_key_that_only_reads(api: Api, folder: Path, ask: Callable[[openai.OpenAI], Any]) -> None:
    with client_of(api, "af_0_0") as client, pytest.raises(openai.AuthenticationError) as refused:
        ask(client)
    assert (refused.value.code, refused.value.type) == ("unauthenticated", "authentication_error")
    with client_of(api, key(folder, "reader", "--scope", "read")) as client:
        with pytest.raises(openai.PermissionDeniedError, match="submit"):
            ask(client)


@pytest.mark.parametrize("ask", ASKS[:4])
def test_a_tenant_without_money_is_told_and_not_tried_again(
    api: Api, folder: Path, models: ScriptedServer, ask: Callable[[openai.OpenAI], Any]
) -> None:
    models.script({"small": [{"text": "High.", "usage": USAGE}]})
    poor = key(folder, "poor", "--day-usd", "0.0000001")
    before = len(models.requests())
    with client_of(api, poor, max_retries=3) as client, pytest.raises(openai.APIStatusError) as refused:
        ask(client)
    assert refused.value.status_code == 402
    assert (refused.value.code, refused.value.type) == ("budget_exceeded", "insufficient_quota")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert int(refused.value.response.headers["retry-after"]) <= 86_400, "the day ends at some time"
    assert len(models.requests()) == before


def test_too_many_requests_say_when_to_come_back(api: Api, folder: Path, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "High.", "usage": USAGE}]})
    with client_of(api, key(folder, "hasty", "--requests-per-minute", "2")) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            for _ in range(4):
                ASKS[0](client)
    assert refused.value.code == "rate_limited" and refused.value.type == "rate_limit_error"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 60


def test_what_is_wrong_with_a_request_is_named(api: Api, folder: Path, models: ScriptedServer) -> None:
    with client_of(api, key(folder, "careless")) as client:
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.chat.completions.create(model="small", messages=ASK, temperature=9)
        assert (refused.value.param, refused.value.type) == ("temperature", "invalid_request_error")
        with pytest.raises(openai.BadRequestError, match="format 'xml'"):
            client.chat.completions.create(model="small", messages=ASK, response_format={"type": "xml"})  # type: ignore[call-overload]
        for ask in (client.models.retrieve, lambda name: client.responses.create(model=name, input="How high?")):
            with pytest.raises(openai.NotFoundError) as unknown:
                ask("gpt-9")
            assert unknown.value.code == "not_found"
        models.script({"small": [{"status": 500}]})
        with pytest.raises(openai.InternalServerError, match="small"):
            client.responses.create(model="small", input="How high?")
        models.script({"small": [{"text": "The tide is high. " * 20, "drop_after": 3}]})
        *_, last = client.responses.create(model="small", input="How high?", stream=True)
        assert last.type == "error" and last.sequence_number > 2, "of responses the client hands errors on as events"
