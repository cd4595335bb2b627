"""Sending spans and metrics out, when the environment names a collector and the ``otel`` extra is installed.

The command line calls ``setup`` once; a program that installs an OpenTelemetry SDK of its own needs none of this.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Collection

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
# With nobody listening, an exporter without a limit retries for 7 to 8 s.
_EXPORT_S = 2
_EXIT_S = 2.5


def setup(*, capture_content: bool = False, compat: Collection[str] = ()) -> bool:
    """Install the OpenTelemetry SDK with OTLP exporters when OTEL_EXPORTER_OTLP_ENDPOINT is set.

    Args:
        capture_content: record prompts and replies on spans, unless
            OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says otherwise.
        compat: other viewers whose names spans carry too: ``openinference``, ``mlflow``.

    Returns:
        Whether spans and metrics now leave the process. A collector that does not listen never delays a call:
        export happens in a thread, and the end of the program waits 2.5 s for it at most.
    """
    if not os.environ.get(_ENDPOINT):
        return False
    try:
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from agentflow.telemetry.compat import CompatibleExporter
    except ImportError:
        return False
    if capture_content:
        os.environ.setdefault(_CAPTURE, "SPAN_ONLY")
    # A collector that is away is no error of the job: its retries would fill the terminal.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "agentflow")})
    spans = TracerProvider(resource=resource, shutdown_on_exit=False)
    spans.add_span_processor(BatchSpanProcessor(CompatibleExporter(OTLPSpanExporter(timeout=_EXPORT_S), compat)))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=_EXPORT_S))
    measures = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    trace.set_tracer_provider(spans)
    metrics.set_meter_provider(measures)

    _flush_at_exit(spans.shutdown, measures.shutdown)
    return True


def _flush_at_exit(*shutdowns: Callable[[], object]) -> None:
    """Run the shutdowns side by side when the program ends, and wait for them for 2.5 s in all.

    Their threads start now and sleep: Python 3.12 starts none once the interpreter is ending.
    """
    ending = threading.Event()

    def flush(shutdown: Callable[[], object]) -> None:
        ending.wait()
        shutdown()

    threads = [threading.Thread(target=flush, args=(shutdown,), daemon=True) for shutdown in shutdowns]
    for thread in threads:
        thread.start()

    def end() -> None:
        ending.set()
        deadline = time.monotonic() + _EXIT_S
        for thread in threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    atexit.register(end)
