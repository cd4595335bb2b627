"""agentflow's turn among the clients: a call of an open chain, through meter, cascade and ledger; bare or durable.

Bare is a chain as ``Flow`` opens it with nothing configured but a model and a budget: its ledger is in memory, nobody
records its spans. Durable commits every hold to an SQLite file before its call leaves, and its spans go through the
OpenTelemetry SDK's batch processor to an exporter that drops them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from agentflow import Budget, Flow
from agentflow.config import EnergySettings, LedgerSettings, ModelSettings, Settings
from agentflow.messages import Message, Request
from benchmarks.peers.calling import MAX_TOKENS, MODEL, PROMPT, TIMEOUT_S, Call, run

# Every currency is limited, so that every currency is checked; no limit is ever reached.
BUDGET = Budget(tokens=10**12, usd=10**6, joules=10**12, grams_co2e=10**9, calls=10**9)
REQUEST = Request((Message("user", PROMPT),), max_output_tokens=MAX_TOKENS)


def settings(base_url: str, ledger: Path | None = None, *, stream: bool = False) -> Settings:
    """A model with a price in the price book at this address; a ledger in this file, or in memory.

    Replies come whole, as every other client asks for them, unless ``stream``.
    """
    model = ModelSettings(
        backend="openai", model=MODEL, base_url=base_url, timeout_s=TIMEOUT_S, stream=stream,
        energy=EnergySettings(kind="remote"),
    )  # fmt: skip
    kept = LedgerSettings(kind="memory") if ledger is None else LedgerSettings(kind="sqlite", path=ledger)
    return Settings(models={"model": model}, ledger=kept)


@asynccontextmanager
async def open_chain(base_url: str, ledger: Path | None = None) -> AsyncGenerator[Call]:
    """A chain that calls the model; its ledger is in this file, or in memory."""
    async with Flow(settings(base_url, ledger)) as flow, flow.chain("benchmark", budget=BUDGET) as chain:

        async def call() -> str:
            return (await chain.call(REQUEST)).output

        yield call


@asynccontextmanager
async def open_durable(base_url: str) -> AsyncGenerator[Call]:
    """A chain with its ledger on disk."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_chain(base_url, Path(folder, "ledger.db")) as call:
            yield call


class Dropped(SpanExporter):
    """An exporter that sends nothing anywhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def trace_everything() -> None:
    """Record every span of this process, and export them in batches."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropped()))
    trace.set_tracer_provider(provider)


if __name__ == "__main__":
    if sys.argv[1:2] == ["durable"]:
        del sys.argv[1]
        trace_everything()
        run(open_durable)
    else:
        run(open_chain)
