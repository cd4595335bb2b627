"""The retrieval rung: BM25 alone, or BM25 re-scored by the configured embedder. Imports retrieval, runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentflow.budget.prices import Price
from agentflow.budget.spend import Quote
from agentflow.cascade.rung import Answer, CodeRung
from agentflow.cascade.semantic_cache import LONGEST
from agentflow.config import EmbedderSettings, ResearchSettings
from agentflow.messages import TokenUsage
from agentflow.research.embedders import (
    Embedder,
    LlamaCppEmbedder,
    OpenAIEmbedder,
    SentenceTransformersEmbedder,
    Vectors,
)
from agentflow.research.retrieval import CANDIDATES, Bm25Index, fuse
from agentflow.runtime import Runtime
from agentflow.tokens import TokenCounter

# CPU seconds held for a search, and for embedding one chunk in this process.
_SEARCH_CPU_S, _EMBED_CPU_S = 0.5, 0.05


def retrieval_rung(
    runtime: Runtime, index: Bm25Index, settings: ResearchSettings, embedder: Embedder | None
) -> CodeRung:
    """How passages are looked up with these settings."""
    if settings.embedder is None or embedder is None:

        def search_words(question: str) -> Answer:
            return Answer(index.search(question, settings.passages))

        return runtime.code_rung("BM25", search_words, max_cpu_s=_SEARCH_CPU_S)
    if settings.embedder.kind == "openai":
        return _endpoint_rung(runtime, index, settings, settings.embedder, embedder)

    async def search_meaning(question: str) -> Answer:
        return Answer(await fuse(index, embedder, question, settings.passages))

    cpu_s = _SEARCH_CPU_S + CANDIDATES * _EMBED_CPU_S
    return runtime.code_rung(f"BM25 + {embedder.name}", search_meaning, max_cpu_s=cpu_s)


def _endpoint_rung(
    runtime: Runtime, index: Bm25Index, settings: ResearchSettings, facts: EmbedderSettings, embedder: Embedder
) -> CodeRung:
    """With an endpoint, the text sent is held and charged as input tokens at the embedder's price."""
    price = Price.per_million(facts.price or "0", "0", source="agentflow.toml")
    counter = TokenCounter.for_model(facts.model)

    async def search(question: str) -> Answer:
        counted = _Counted(embedder, counter)
        hits = await fuse(index, counted, question, settings.passages)
        usage = TokenUsage(input=counted.tokens, source="tokenizer" if counter.exact else "estimate")
        return Answer(hits, usage=usage, nano_usd=price.cost(usage))

    # A token has at least two characters in any text that is worth searching.
    most = CANDIDATES * settings.chunk_chars // 2
    rung = runtime.code_rung(f"BM25 + {embedder.name}", search, max_cpu_s=_SEARCH_CPU_S)
    return replace(rung, worst=Quote(tokens=most, nano_usd=price.ceiling(most, 0)))


def embedding_rung(runtime: Runtime, facts: EmbedderSettings, embedder: Embedder) -> CodeRung:
    """What turns one question, or several, into the bytes of their vectors (float32), metered like any search.

    It is held for one question; ``embedding_all`` holds it for several.
    """
    price = Price.per_million(facts.price or "0", "0", source="agentflow.toml")
    counter = TokenCounter.for_model(facts.model)
    remote = facts.kind == "openai"

    async def embed(asked: str | tuple[str, ...]) -> Answer:
        counted = _Counted(embedder, counter)
        vectors = await counted.embed([asked] if isinstance(asked, str) else asked)
        tokens = counted.tokens if remote else 0
        usage = TokenUsage(input=tokens, source="tokenizer" if counter.exact else "estimate")
        return Answer(vectors.tobytes(), usage=usage, nano_usd=price.cost(usage))

    rung = runtime.code_rung(f"embedding by {embedder.name}", embed, max_cpu_s=_EMBED_CPU_S)
    # A token a character is more than any tokenizer makes of text; a few bytes of other scripts make several.
    most = LONGEST * 4 if remote else 0
    return replace(rung, worst=Quote(tokens=most, nano_usd=price.ceiling(most, 0)))


def embedding_all(rung: CodeRung, facts: EmbedderSettings, texts: Sequence[str]) -> CodeRung:
    """An embedding rung, held for all these texts at once."""
    price = Price.per_million(facts.price or "0", "0", source="agentflow.toml")
    # No tokenizer makes more tokens than a text has bytes; each text may be closed by one or two of its own.
    most = sum(len(text.encode("utf-8", "replace")) + 2 for text in texts) if facts.kind == "openai" else 0
    worst = Quote(tokens=most, nano_usd=price.ceiling(most, 0))
    return replace(rung, worst=worst, max_cpu_s=_EMBED_CPU_S * len(texts))


def embed_as_configured(runtime: Runtime) -> None:
    """Let calls that look for other wordings of a question embed it; the embedder is closed with the runtime."""
    facts = runtime.settings.research.embedder
    if facts is not None and runtime.embedding is None:
        embedder = make_embedder(facts)
        runtime.embedding = embedding_rung(runtime, facts, embedder)
        runtime.also_close(embedder.aclose)


class _Counted:
    """An embedder that counts the tokens of what it is sent."""

    def __init__(self, embedder: Embedder, counter: TokenCounter) -> None:
        self.name = embedder.name
        self.tokens = 0
        self.aclose = embedder.aclose
        self._embedder = embedder
        self._counter = counter

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.tokens += sum(map(self._counter.text, texts))
        return await self._embedder.embed(texts)


def make_embedder(settings: EmbedderSettings) -> Embedder:
    """The configured embedder; its library is imported when it first embeds."""
    if settings.kind == "openai":
        return OpenAIEmbedder(settings.model, settings.base_url or "", settings.api_key_env)
    if settings.kind == "llamacpp" and settings.path is not None:
        return LlamaCppEmbedder(settings.path)
    return SentenceTransformersEmbedder(settings.model)
