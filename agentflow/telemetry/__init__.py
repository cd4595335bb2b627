"""Spans and metrics in OpenTelemetry's GenAI conventions: ``semconv``, ``tracing``, ``metrics``, ``compat``, ``export``.

The only folder that imports OpenTelemetry. Imports messages.
"""
