"""Spans and metrics in OpenTelemetry's GenAI conventions: ``semconv``, ``tracing``, ``metrics``, ``export``, ``compat``."""
