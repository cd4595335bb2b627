"""Embedders: text in, unit vectors out, behind one small protocol. Each heavy library is imported on first use."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from agentflow.errors import BackendUnavailable, BadReply, ConfigError

Vectors = np.ndarray[Any, np.dtype[np.float32]]
_BATCH = 64
_LLAMA_BATCH_TOKENS = 2_048
# A text of fewer characters that a model still refuses is not refused for its length.
_SHORTEST = 32


class Embedder(Protocol):
    """Turns texts into vectors of unit length, one row each."""

    name: str

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of ``texts``: float32, shape (len(texts), dimensions)."""
        ...

    async def aclose(self) -> None:
        """Let go of what the embedder holds."""
        ...


class SentenceTransformersEmbedder:
    """A local model through sentence-transformers (extra ``embeddings``).

    Args:
        model: a folder with the model, or a name in the local cache.
    """

    def __init__(self, model: str) -> None:
        self.name = f"sentence-transformers {Path(model).name}"
        self._model_name = model
        self._model: Any = None
        self._loading = threading.Lock()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of ``texts``, computed in a worker thread."""
        return await asyncio.to_thread(self._embed, list(texts))

    def _embed(self, texts: list[str]) -> Vectors:
        with self._loading:
            if self._model is None:
                self._model = self._load()
        return _unit(self._model.encode(texts, batch_size=_BATCH, show_progress_bar=False))

    def _load(self) -> Any:
        try:
            import sentence_transformers  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ConfigError(
                "The embedder needs sentence-transformers, which is not installed. "
                "Run: pip install 'agentflow[embeddings]'"
            ) from error
        try:
            return cast(Any, sentence_transformers).SentenceTransformer(self._model_name)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ConfigError(
                f"The embedding model {self._model_name!r} cannot be loaded: {reason}. "
                "Set research.embedder.model to a folder that holds one."
            ) from error

    async def aclose(self) -> None:
        """Drop the model."""
        self._model = None


class OpenAIEmbedder:
    """Any OpenAI-compatible embeddings endpoint.

    Args:
        model: the server's name of the model.
        base_url: up to and including ``/v1``.
        api_key_env: the environment variable that holds the key, if one is needed.
        timeout_s: the longest one batch may take.
    """

    def __init__(self, model: str, base_url: str, api_key_env: str | None = None, timeout_s: float = 60.0) -> None:
        self.name = f"{model} at {base_url}"
        self._model = model
        self._url = base_url.rstrip("/") + "/embeddings"
        self._key_env = api_key_env
        self._timeout_s = timeout_s

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of ``texts``, a batch a request.

        Raises:
            BackendUnavailable: the server does not answer.
            BadReply: it answers something else than one vector a text.
        """
        import aiohttp

        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        key = os.environ.get(self._key_env) if self._key_env else None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        rows: list[Vectors] = []
        try:
            async with aiohttp.ClientSession(
                headers=headers, timeout=aiohttp.ClientTimeout(total=self._timeout_s)
            ) as session:
                for start in range(0, len(texts), _BATCH):
                    batch = list(texts[start : start + _BATCH])
                    async with session.post(self._url, json={"model": self._model, "input": batch}) as response:
                        reply = await response.json(content_type=None) if response.ok else f"status {response.status}"
                        rows.append(_rows(reply, len(batch)))
        except (aiohttp.ClientPayloadError, ValueError) as error:
            raise BadReply(
                f"The embeddings server at {self._url} sent no whole JSON ({type(error).__name__})."
            ) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BackendUnavailable(
                f"The embeddings server at {self._url} does not answer ({type(error).__name__}). Start it, or unset "
                "research.embedder."
            ) from error
        if len({vectors.shape[1] for vectors in rows}) > 1:
            raise BadReply(f"The embeddings server at {self._url} gave vectors of different lengths.")
        return _unit(np.concatenate(rows))

    async def aclose(self) -> None:
        """Nothing is held between calls."""


class LlamaCppEmbedder:
    """A GGUF embedding model in this process through llama.cpp (extra ``local``).

    A text longer than the model's context is embedded by as much of its beginning as fits.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(f"No embedding model at {path}. Set research.embedder.path to a .gguf file.")
        self.name = f"llama.cpp {path.name}"
        self._path = path
        self._server: Any = None
        self._loading = threading.Lock()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of ``texts``, computed in a worker thread."""
        return await asyncio.to_thread(self._embed, list(texts))

    def _embed(self, texts: list[str]) -> Vectors:
        with self._loading:
            if self._server is None:
                self._server = self._load()
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        parts = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        return _unit(np.concatenate([self._batch(part) for part in parts]))

    def _batch(self, texts: list[str]) -> Vectors:
        """Vectors of one batch. Refused as a whole it is tried text by text, a text refused by its first half."""
        reply = self._server.handle_embeddings({"input": texts})
        if "error" not in reply:
            return _rows(reply, len(texts))
        if len(texts) > 1:
            return np.concatenate([self._batch([text]) for text in texts])
        if len(texts[0]) < _SHORTEST:
            return _rows(reply, 1)
        return self._batch([texts[0][: len(texts[0]) // 2]])

    def _load(self) -> Any:
        try:
            import xllamacpp as library
        except ImportError as error:
            raise ConfigError(
                "The embedder needs llama.cpp, which is not installed. Run: pip install 'agentflow[local]'"
            ) from error
        llama = cast(Any, library)
        params = llama.CommonParams()
        params.model.path, params.embedding, params.warmup, params.verbosity = str(self._path), True, False, -1
        params.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # A text must fit one physical batch; threads beyond one spin on machines that are busy otherwise.
        params.n_batch = params.n_ubatch = _LLAMA_BATCH_TOKENS
        params.cpuparams.n_threads = 1
        try:
            return llama.Server(params)
        except RuntimeError as error:
            reason = str(error).rstrip(".")
            raise ConfigError(f"{self._path} cannot be loaded as an embedding model: {reason}.") from error

    async def aclose(self) -> None:
        """Free the model."""
        self._server = None


def _rows(reply: Any, count: int) -> Vectors:
    """The vectors of an OpenAI-shaped embeddings reply, in the order of the texts."""
    try:
        data = sorted(reply["data"], key=lambda row: row["index"])
        vectors = np.asarray([row["embedding"] for row in data], dtype=np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise BadReply(f"The embeddings server answered {str(reply)[:120]!r}, not one vector a text.") from error
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise BadReply(f"The embeddings server gave vectors of shape {vectors.shape} for {count} texts.")
    return vectors


def _unit(vectors: Any) -> Vectors:
    rows = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
