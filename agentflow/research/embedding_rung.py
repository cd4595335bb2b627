"""The retrieval rung: BM25 alone, or BM25 re-scored by the configured embedder. Imports retrieval, runtime."""

from __future__ import annotations

from dataclasses import replace

from agentflow.budget.prices import Price
from agentflow.budget.spend import Quote
from agentflow.cascade.rung import Answer, CodeRung
from agentflow.config import EmbedderSettings, ResearchSettings
from agentflow.messages import TokenUsage
from agentflow.research.embedders import Embedder, LlamaCppEmbedder, OpenAIEmbedder, SentenceTransformersEmbedder
from agentflow.research.retrieval import CANDIDATES, Bm25Index, fuse
from agentflow.runtime import Runtime
from agentflow.tokens import TokenCounter

# CPU seconds held for a search, and for embedding one chunk in this process.
_SEARCH_CPU_S, _EMBED_CPU_S = 0.5, 0.05


def embedding_rung(runtime: Runtime, index: Bm25Index, settings: ResearchSettings) -> CodeRung:
    """How passages are looked up with these settings.

    Text sent to an embeddings endpoint is held and charged as input tokens at the embedder's price.
    """
    if settings.embedder is None:

        def search_words(question: str) -> Answer:
            return Answer(index.search(question, settings.passages))

        return runtime.code_rung("BM25", search_words, max_cpu_s=_SEARCH_CPU_S)
    embedder = make_embedder(settings.embedder)
    remote = settings.embedder.kind == "openai"
    price = Price.per_million(settings.embedder.price or "0", "0", source="agentflow.toml")
    counter = TokenCounter.for_model(settings.embedder.model)

    async def search(question: str) -> Answer:
        hits = await fuse(index, embedder, question, settings.passages)
        if not remote:
            return Answer(hits)
        sent = [question, *(hit.chunk.text for hit in index.search(question, CANDIDATES))]
        usage = TokenUsage(input=sum(map(counter.text, sent)), source="tokenizer")
        return Answer(hits, usage=usage, nano_usd=price.cost(usage))

    worst = Quote()
    if remote:
        tokens = CANDIDATES * settings.chunk_chars // 2
        worst = Quote(tokens=tokens, nano_usd=price.ceiling(tokens, 0))
    cpu_s = _SEARCH_CPU_S + (0.0 if remote else CANDIDATES * _EMBED_CPU_S)
    rung = CodeRung(f"BM25 + {embedder.name}", search, runtime.cpu, cpu_s)
    return replace(rung, worst=worst)


def make_embedder(settings: EmbedderSettings) -> Embedder:
    """The configured embedder; its library is imported when it first embeds."""
    if settings.kind == "openai":
        return OpenAIEmbedder(settings.model, settings.base_url or "", settings.api_key_env)
    if settings.kind == "llamacpp" and settings.path is not None:
        return LlamaCppEmbedder(settings.path)
    return SentenceTransformersEmbedder(settings.model)
