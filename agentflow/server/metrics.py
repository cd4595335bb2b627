"""Figures for Prometheus: requests, spend, refusals. A registry of this server's own. Imports prometheus_client.

No label holds a tenant, a key or a job: their number has no bound, and whom they belong to is nobody else's business.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from agentflow.cascade.reply import AnyReply
from agentflow.jobs.job import JobStatistics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# A client may call its method as it likes; each name would be kept for ever.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What one server process counts."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "agentflow_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "agentflow_http_request_seconds", "From the request to the start of its response.", ("method", "route"),
            buckets=_BUCKETS, registry=registry,
        )  # fmt: skip
        self.streams = Gauge("agentflow_event_streams", "Event streams that are open.", registry=registry)
        self.waits = Gauge("agentflow_result_waits", "Requests that wait for a result.", registry=registry)
        self._calls = Counter("agentflow_calls", "Calls served to OpenAI clients.", ("rung",), registry=registry)
        self._refused = Counter("agentflow_budget_refusals", "Requests that a budget refused.", registry=registry)
        self._tokens = Counter("agentflow_tokens", "Tokens spent by OpenAI clients.", ("kind",), registry=registry)
        self._usd = Counter("agentflow_usd", "Dollars spent by OpenAI clients.", registry=registry)
        self._joules = Counter("agentflow_joules", "Joules spent by OpenAI clients, means.", registry=registry)
        self._waiting = Gauge("agentflow_jobs_waiting", "Jobs that wait for a worker.", ("queue",), registry=registry)
        self._at_work = Gauge("agentflow_jobs_at_work", "Jobs that a worker has.", ("queue",), registry=registry)
        self._lag = Gauge(
            "agentflow_queue_lag_seconds", "How long the longest waiting job has waited.", ("queue",), registry=registry
        )
        self._queues = set[str]()
        self._workers = Gauge("agentflow_workers", "Workers that are alive.", registry=registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the path's template, never the path."""
        method = method if method in _METHODS else "(other)"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def served(self, reply: AnyReply) -> None:
        """Count what a call used."""
        spend = reply.spend
        self._calls.labels(reply.rung).inc()
        self._tokens.labels("input").inc(spend.usage.input)
        self._tokens.labels("output").inc(spend.usage.output)
        self._usd.inc(spend.nano_usd / 1e9)
        self._joules.inc(spend.energy.mean)

    def refused(self) -> None:
        """Count a request that a budget had no room for."""
        self._refused.inc()

    def jobs(self, statistics: JobStatistics) -> None:
        """Note how queues and workers stand; a queue without jobs is not among them, and stands at nothing."""
        self._workers.set(len(statistics.workers))
        for gauge in (self._waiting, self._at_work, self._lag):
            for queue in self._queues:
                gauge.labels(queue).set(0)
        for queue in statistics.queues:
            self._waiting.labels(queue.queue).set(queue.waiting)
            self._at_work.labels(queue.queue).set(queue.at_work)
            self._lag.labels(queue.queue).set(queue.oldest_s or 0.0)
            self._queues.add(queue.queue)

    def page(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)
