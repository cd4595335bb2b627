"""Spans under the names that other viewers read, beside the conventions' own. ``export`` puts it before an exporter.

OpenInference viewers (Phoenix) tell what a span is from ``openinference.span.kind``; of a model that MLflow has no
price for, it reads the dollars from ``mlflow.llm.cost`` alone. Names are added in the export thread: no call waits for
them. Needs the ``otel`` extra, so only ``export`` imports it, when there is somewhere to send spans.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from agentflow.telemetry import semconv as names

OPENINFERENCE: Final = "openinference"
MLFLOW: Final = "mlflow"

# By gen_ai.operation.name; a span of ours without one is a call or a code rung.
_KINDS = {
    "chat": "LLM",
    "embeddings": "EMBEDDING",
    "execute_tool": "TOOL",
    "invoke_agent": "AGENT",
    "retrieval": "RETRIEVER",
}
_OTHER_KIND = "CHAIN"


class CompatibleExporter(SpanExporter):
    """Hands spans on with the names of other viewers added.

    Args:
        exporter: what sends them.
        compat: ``openinference``, ``mlflow``, or both.
    """

    def __init__(self, exporter: SpanExporter, compat: Collection[str]) -> None:
        self._exporter = exporter
        self._compat = frozenset(compat)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans; those of other libraries stay as they are."""
        return self._exporter.export([self._named(span) for span in spans])

    def shutdown(self) -> None:
        """Shut down what sends them."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush what sends them, within ``timeout_millis``."""
        return self._exporter.force_flush(timeout_millis)

    def _named(self, span: ReadableSpan) -> ReadableSpan:
        scope = span.instrumentation_scope
        if scope is None or scope.name != names.SCOPE:
            return span
        return ReadableSpan(
            name=span.name, context=span.context, parent=span.parent, resource=span.resource,
            attributes={**self._added(span.attributes or {}), **(span.attributes or {})},
            events=span.events, links=span.links, kind=span.kind, status=span.status,
            start_time=span.start_time, end_time=span.end_time, instrumentation_scope=scope,
        )  # fmt: skip

    def _added(self, said: Any) -> dict[str, str]:
        added: dict[str, str] = {}
        operation = said.get(names.OPERATION_NAME)
        if OPENINFERENCE in self._compat:
            added[names.OPENINFERENCE_KIND] = _KINDS.get(operation, _OTHER_KIND)
        # MLflow adds up what is there; a part it misses counts as nothing, so the total stands alone.
        if MLFLOW in self._compat and operation == "chat" and names.COST_AMOUNT in said:
            added[names.MLFLOW_COST] = json.dumps({"total_cost": said[names.COST_AMOUNT]})
        return added
