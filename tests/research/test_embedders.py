from __future__ import annotations

import importlib.util
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentflow.errors import BackendUnavailable, BadReply, ConfigError
from agentflow.research.embedders import Embedder, LlamaCppEmbedder, OpenAIEmbedder, SentenceTransformersEmbedder
from agentflow.research.retrieval import Bm25Index, fuse
from tests.conftest import RUNGS
from tests.research.made import made_corpus
from tests.servers.openai_server import ServerProcess

TEXTS = ["a hold before the call", "a hold before the call", "something else entirely"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    process = ServerProcess("tests.servers.embeddings")
    yield process.address
    process.stop()


def read_json(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=10) as reply:
        return json.load(reply)


async def check_contract(embedder: Embedder) -> None:
    """What every embedder promises."""
    vectors = await embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == 3
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0, 1.0], abs=1e-4)
    assert vectors[0] @ vectors[1] == pytest.approx(1.0, abs=1e-3)
    assert vectors[0] @ vectors[2] < 0.999
    assert len(await embedder.embed([])) == 0
    await embedder.aclose()


async def test_an_endpoint_embeds(server: str) -> None:
    await check_contract(OpenAIEmbedder("words", f"{server}/v1"))


async def test_rows_are_put_in_the_order_of_the_texts(server: str) -> None:
    vectors = await OpenAIEmbedder("reversed", f"{server}/v1/").embed(TEXTS)
    assert np.array_equal(vectors, await OpenAIEmbedder("words", f"{server}/v1").embed(TEXTS))


async def test_many_texts_go_in_batches_with_the_key(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDINGS_KEY", "secret")
    texts = [f"text {n}" for n in range(150)]
    vectors = await OpenAIEmbedder("words", f"{server}/v1", "EMBEDDINGS_KEY").embed(texts)
    asked = read_json(f"{server}/asked")
    assert len(vectors) == 150
    assert asked["batches"][-3:] == [64, 64, 22]
    assert asked["authorization"] == "Bearer secret"


@pytest.mark.parametrize("model", ["short", "ragged", "nan", "garbage", "failing", "half"])
async def test_a_broken_reply_is_a_clear_error(server: str, model: str) -> None:
    with pytest.raises(BadReply) as caught:
        await OpenAIEmbedder(model, f"{server}/v1").embed(TEXTS)
    assert "\n" not in str(caught.value)


async def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(BackendUnavailable, match="does not answer"):
        await OpenAIEmbedder("words", "http://127.0.0.1:1/v1").embed(TEXTS)


async def test_an_endpoint_serves_the_hybrid(server: str) -> None:
    index = Bm25Index.build(made_corpus("hold hold hold tokens", "hold before the call leaves", "nothing"))
    hits = await fuse(index, OpenAIEmbedder("words", f"{server}/v1"), "hold before the call leaves", 2)
    assert [hit.chunk.source.id for hit in hits] == ["s2", "s1"]


needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra 'local' is not installed"
)


@needs_llama
async def test_llama_cpp_embeds() -> None:
    await check_contract(LlamaCppEmbedder(RUNGS / "small.gguf"))


@needs_llama
async def test_llama_cpp_embeds_the_beginning_of_a_text_that_is_too_long() -> None:
    embedder = LlamaCppEmbedder(RUNGS / "small.gguf")
    vectors = await embedder.embed(["1 + 2 " * 3_000, "3"])
    await embedder.aclose()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0], abs=1e-4)


@needs_llama
async def test_a_file_that_is_no_model_is_a_clear_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    with pytest.raises(ConfigError, match=r"broken\.gguf cannot be loaded"):
        await LlamaCppEmbedder(broken).embed(TEXTS)


def test_a_missing_model_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No embedding model at"):
        LlamaCppEmbedder(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("library", "embedder", "extra"),
    [
        ("sentence_transformers", SentenceTransformersEmbedder("any"), "agentflow[embeddings]"),
        ("xllamacpp", LlamaCppEmbedder(RUNGS / "small.gguf"), "agentflow[local]"),
    ],
)
async def test_a_missing_extra_says_how_to_get_it(
    library: str, embedder: Embedder, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError) as caught:
        await embedder.embed(TEXTS)
    assert f"pip install '{extra}'" in str(caught.value)


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="the extra 'embeddings' is not installed"
)
async def test_a_sentence_transformers_model_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        await SentenceTransformersEmbedder(str(tmp_path / "none")).embed(TEXTS)
