"""Sending spans and metrics out, when the environment names a collector and the ``otel`` extra is installed."""

from __future__ import annotations

import atexit
import logging
import os
import threading

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def export_if_asked() -> bool:
    """Install the OpenTelemetry SDK with an OTLP exporter when OTEL_EXPORTER_OTLP_ENDPOINT is set.

    Returns:
        Whether spans now leave the process. A collector that does not listen never delays a call: export
        happens in a thread, with a time limit of 2 s at exit.
    """
    if not os.environ.get(_ENDPOINT):
        return False
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return False
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    provider = TracerProvider(
        resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "agentflow")}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=2)))
    trace.set_tracer_provider(provider)

    def flush() -> None:
        thread = threading.Thread(target=provider.shutdown, daemon=True)
        thread.start()
        thread.join(timeout=2.5)

    atexit.register(flush)
    return True
