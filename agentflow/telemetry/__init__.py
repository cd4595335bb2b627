"""Spans and metrics in OpenTelemetry's GenAI conventions. The only folder that imports OpenTelemetry; imports messages.

``semconv`` holds the names, ``tracing`` the spans, ``metrics`` the instruments; ``export`` sends both out, through
``compat`` for viewers with names of their own.
"""
