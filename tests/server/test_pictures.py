"""Pictures in messages: inside their addresses, or fetched from public ones; to models that see them alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.test_chat import USAGE
from tests.servers.api import Api, toml
from tests.servers.openai_server import ScriptedServer
from tests.test_images import made

PNG = made("PNG")
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.fixture(scope="module")
def folder(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    more = "[server]\nmax_image_mb = 1\n"
    (folder / "agentflow.toml").write_text(seeing(toml(models, more)))
    return folder


@pytest.fixture(scope="module")
def trusting(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server that may fetch from this machine."""
    folder = tmp_path_factory.mktemp("trusting")
    (folder / "agentflow.toml").write_text(seeing(toml(models, "[server]\nallow_private = true\nmax_image_mb = 1\n")))
    server = Api(folder)
    yield server
    server.kill()


def seeing(text: str) -> str:
    return text.replace("[models.large]\n", '[models.large]\nserves = ["text", "vision", "json", "tools"]\n')


def client_of(api: Api) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def client(api: Api) -> Iterator[openai.OpenAI]:
    with client_of(api) as client:
        yield client


def asking(url: str, **more: Any) -> Any:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url, **more}}]
    return [{"role": "user", "content": parts}]


def shown(models: ScriptedServer) -> list[Any]:
    """The pictures that the model was shown last, in all messages."""
    messages = models.requests()[-1]["body"]["messages"]
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return [part["image_url"] for part in parts if part["type"] == "image_url"]


def test_a_picture_goes_to_a_model_that_sees_it(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"*": [{"text": "Teal.", "usage": USAGE}]})
    raw = client.chat.completions.with_raw_response.create(model="default", messages=asking(DATA, detail="low"))
    assert raw.headers["x-agentflow-rung"] == "large", "small does not see"
    assert shown(models) == [{"url": DATA, "detail": "low"}]
    with pytest.raises(openai.BadRequestError, match="small: it does not serve images"):
        client.chat.completions.create(model="small", messages=asking(DATA))


def test_a_picture_stays_in_the_conversation_of_a_response(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"*": [{"text": "Teal.", "usage": USAGE}]})
    parts: Any = [
        {"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": DATA, "detail": "high"},
    ]  # fmt: skip
    first = client.responses.create(model="large", input=[{"role": "user", "content": parts}])
    client.responses.create(model="large", input="Are you sure?", previous_response_id=first.id)
    assert shown(models) == [{"url": DATA, "detail": "high"}]
    (item,) = client.responses.input_items.list(first.id)
    assert item.model_dump(exclude_none=True)["content"][1] == {
        "type": "input_image",
        "image_url": DATA,
        "detail": "high",
    }


def test_a_picture_is_fetched_once_and_kept_as_it_was(trusting: Api, models: ScriptedServer, pages: str) -> None:
    models.script({"*": [{"text": "Teal.", "usage": USAGE}]})
    with client_of(trusting) as client:
        client.chat.completions.create(model="large", messages=asking(f"{pages}/picture"))
        assert [picture["url"][:30] for picture in shown(models)] == ["data:image/png;base64,iVBORw0K"]
        part: Any = {"type": "input_image", "image_url": f"{pages}/away?to=/picture"}
        first = client.responses.create(model="large", input=[{"role": "user", "content": [part]}])
        (item,) = client.responses.input_items.list(first.id)
        assert item.model_dump()["content"][0]["image_url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/image", "not a whole PNG"), ("/article", "not a whole PNG"), ("/none", "404"), ("/bomb", "1,000,000 bytes"),
        ("/endless", "1,000,000 bytes"), ("/away?to=file:///etc/passwd", "no plain http"),
    ],
)  # fmt: skip
def test_what_is_no_picture_there_is_refused(trusting: Api, pages: str, path: str, word: str) -> None:
    with client_of(trusting) as client, pytest.raises(openai.BadRequestError, match=word):
        client.chat.completions.create(model="large", messages=asking(f"{pages}{path}"))


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://127.0.0.1:1/a.png", "loopback"), ("http://localhost:1/a.png", "loopback"),
        ("http://[::1]/a.png", "loopback"), ("http://169.254.169.254/latest", "link-local"),
        ("http://10.0.0.1/a.png", "private"), ("http://user:pw@example.org/a.png", "plain"),
        ("http://[", "image_url"), ("ftp://example.org/a.png", "no picture"), ("file:///etc/passwd", "no picture"),
        ("data:text/plain;base64,aGk=", "no picture"), ("data:image/png;base64,%%%", "not base64"),
        ("data:image/png;base64,aGk=", "not a whole PNG"), ("data:image/png,abc", "no picture"),
    ],
)  # fmt: skip
def test_addresses_that_are_not_visited_are_refused_before_anything_is_sent(
    client: openai.OpenAI, models: ScriptedServer, url: str, word: str
) -> None:
    before = len(models.requests())
    with pytest.raises(openai.BadRequestError, match=word) as caught:
        client.chat.completions.create(model="large", messages=asking(url))
    assert "pw@" not in str(caught.value) and len(models.requests()) == before


def test_pictures_have_bounds(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="large", messages=asking("data:image/png;base64," + "A" * 4_000_000))
    assert caught.value.status_code == 413
    many = asking(DATA)[0]["content"][1:] * 51
    with pytest.raises(openai.BadRequestError, match="51 pictures"):
        client.chat.completions.create(model="large", messages=[{"role": "user", "content": many}])
    for part in ({"type": "input_audio"}, {"type": "image_url"}, {"type": "input_file"}):
        with pytest.raises(openai.BadRequestError, match=part["type"]):
            client.chat.completions.create(model="large", messages=[{"role": "user", "content": [part]}])  # type: ignore[list-item]
