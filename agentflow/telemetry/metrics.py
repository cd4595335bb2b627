"""Instruments for attempts: duration, time to first token, tokens, dollars, joules. Labels are few and bounded.

Boundaries travel with the instruments and are the conventions' own. ``tracing`` records into them; only this folder
imports OpenTelemetry.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from opentelemetry import metrics
from opentelemetry.metrics import Counter, Histogram
from opentelemetry.metrics._internal import _ProxyMeterProvider

from agentflow.telemetry import semconv

_SECONDS = [0.01 * 2**n for n in range(14)]
_TOKENS = [float(4**n) for n in range(14)]
# No convention bounds dollars yet: from a millionth to ten.
_USD = [1e-6 * 10**n for n in range(8)]


@dataclass(frozen=True, slots=True)
class Instruments:
    """The instruments of one meter provider, in seconds, tokens, dollars and joules.

    ``prompt_cache`` counts prompt tokens by whether the provider read them from its cache, ``reuse`` the calls that
    looked for an earlier reply by whether there was one: the share of hits is a division of two series.
    """

    duration: Histogram
    first_chunk: Histogram
    tokens: Histogram
    cost: Histogram
    energy: Counter
    prompt_cache: Counter
    reuse: Counter


def measured() -> bool:
    """Whether figures go anywhere. Without an SDK they need not be gathered; it may come any time."""
    return not isinstance(metrics.get_meter_provider(), (_ProxyMeterProvider, metrics.NoOpMeterProvider))


@functools.cache
def instruments() -> Instruments:
    """The instruments of the global meter provider; a provider that is installed later is served too."""
    meter = metrics.get_meter(semconv.SCOPE)
    return Instruments(
        meter.create_histogram(semconv.METRIC_DURATION, unit="s", explicit_bucket_boundaries_advisory=_SECONDS),
        meter.create_histogram(semconv.METRIC_FIRST_CHUNK, unit="s", explicit_bucket_boundaries_advisory=_SECONDS),
        meter.create_histogram(semconv.METRIC_TOKENS, unit="{token}", explicit_bucket_boundaries_advisory=_TOKENS),
        meter.create_histogram(semconv.METRIC_COST, unit="USD", explicit_bucket_boundaries_advisory=_USD),
        meter.create_counter(semconv.METRIC_ENERGY, unit="J"),
        meter.create_counter(semconv.METRIC_PROMPT_CACHE, unit="{token}"),
        meter.create_counter(semconv.METRIC_REUSE, unit="{call}"),
    )
