"""Instruments for attempts on models: duration, tokens, dollars, joules. Only this folder imports OpenTelemetry."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from opentelemetry import metrics
from opentelemetry.metrics import Counter, Histogram

from agentflow.telemetry import semconv

# Bucket boundaries travel with the instrument; these are the conventions' own.
_SECONDS = [0.01 * 2**n for n in range(14)]
_TOKENS = [float(4**n) for n in range(14)]
_USD = [1e-6 * 10**n for n in range(8)]


@dataclass(frozen=True, slots=True)
class Instruments:
    """The instruments of one meter provider."""

    duration: Histogram
    tokens: Histogram
    cost: Histogram
    energy: Counter


@functools.cache
def instruments() -> Instruments:
    """The instruments of the global meter provider."""
    meter = metrics.get_meter("agentflow")
    return Instruments(
        meter.create_histogram(semconv.METRIC_DURATION, unit="s", explicit_bucket_boundaries_advisory=_SECONDS),
        meter.create_histogram(semconv.METRIC_TOKENS, unit="{token}", explicit_bucket_boundaries_advisory=_TOKENS),
        meter.create_histogram(semconv.METRIC_COST, unit="USD", explicit_bucket_boundaries_advisory=_USD),
        meter.create_counter(semconv.METRIC_ENERGY, unit="J"),
    )
