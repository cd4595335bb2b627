"""Embeddings by OpenAI's client and litellm: the configured embedder, metered like a call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.test_chat import ASK
from tests.servers.api import Api, toml
from tests.servers.openai_server import ScriptedServer, ServerProcess

TEXTS = ["the tide is high", "the tide is low", "bread and butter"]


@pytest.fixture(scope="module")
def folder(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    process = ServerProcess("tests.servers.embeddings")
    folder = tmp_path_factory.mktemp("embeddings")
    embedder = f'[research.embedder]\nkind = "openai"\nmodel = "words"\nbase_url = "{process.address}/v1"\nprice = 10\n'
    (folder / "agentflow.toml").write_text(toml(models, embedder))
    yield folder
    process.stop()


@pytest.fixture
def client(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def alike(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_texts_become_vectors_with_their_bill(client: openai.OpenAI, form: Any) -> None:
    more = {} if form is None else {"encoding_format": form}
    raw = client.embeddings.with_raw_response.create(model="words", input=TEXTS, **more)
    body = raw.http_response.json()
    assert isinstance(body["data"][0]["embedding"], list if form == "float" else str), "the client asks for base64"
    assert body["usage"]["prompt_tokens"] > 0 and float(raw.headers["x-agentflow-usd"]) > 0
    assert body["usage"]["agentflow"]["attempts"][0]["rung"].startswith("embedding by words")
    if form != "base64":
        rows = [one.embedding for one in raw.parse().data]
        assert alike(rows[0], rows[0]) == pytest.approx(1.0, abs=1e-5)
        assert alike(rows[0], rows[1]) > 0.7 > 0.1 > alike(rows[0], rows[2])


def test_a_budget_holds_for_embeddings_too(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(
            model="words", input="the tide " * 50, extra_body={"agentflow": {"budget": {"tokens": 5}}}
        )
    assert refused.value.status_code == 402


def test_the_embedder_is_listed_and_only_embeds(client: openai.OpenAI) -> None:
    assert client.models.retrieve("words").model_dump()["kind"] == "embedder"
    with pytest.raises(openai.NotFoundError, match="writes none"):
        client.chat.completions.create(model="words", messages=ASK)
    with pytest.raises(openai.NotFoundError, match="does not embed"):
        client.embeddings.create(model="small", input="the tide")
    with pytest.raises(openai.NotFoundError, match="there are"):
        client.embeddings.create(model="gpt-9", input="the tide")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ["x"] * 2_049}, "input"),
        ({"dimensions": 5}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(api: Api, wrong: dict[str, Any], word: str) -> None:
    with api.client() as http:
        reply = http.post("/v1/embeddings", json={"model": "words", "input": "the tide", **wrong})
    assert reply.status_code == 422 and word in reply.json()["detail"]


def test_litellm_embeds(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    reply: Any = litellm.embedding(
        model="openai/words", input=TEXTS[:2], api_base=f"{api.url}/v1", api_key="none", encoding_format="float"
    )
    assert alike(reply.data[0]["embedding"], reply.data[1]["embedding"]) > 0.7
