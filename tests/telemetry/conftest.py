"""One SDK for this process, kept in memory: OpenTelemetry allows its providers to be set once only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Recorded:
    """What left the program since the test began."""

    def __init__(self, exporter: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
        self._exporter = exporter
        self._reader = reader

    def finished(self) -> tuple[ReadableSpan, ...]:
        """Every finished span, in the order they ended."""
        return self._exporter.get_finished_spans()

    def spans(self) -> dict[str, ReadableSpan]:
        """Finished spans by name; of equal names, the last."""
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def attributes(self, name: str) -> Mapping[str, Any]:
        return self.spans()[name].attributes or {}

    def points(self) -> dict[str, list[Any]]:
        """Data points by metric, since this was last asked."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

    def clear(self) -> None:
        self._exporter.clear()
        self._reader.get_metrics_data()


@pytest.fixture(scope="session")
def _sdk() -> Recorded:
    exporter = InMemorySpanExporter()
    spans = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(spans)
    delta = AggregationTemporality.DELTA
    reader = InMemoryMetricReader(preferred_temporality={Counter: delta, Histogram: delta})
    metrics.set_meter_provider(MeterProvider([reader]))
    return Recorded(exporter, reader)


@pytest.fixture
def recorded(_sdk: Recorded) -> Iterator[Recorded]:
    _sdk.clear()
    yield _sdk
    _sdk.clear()
