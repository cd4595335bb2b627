"""What a model server says of its own load: vLLM's and llama.cpp's ``/metrics``, and timings in their replies.

Two dialects, one neutral record. A figure that a server does not give is None: unknown, never zero. Two records make a
``ServerLoad``: how many sequences were decoded together, how long a token took, how much of the prompts was cached.
Imports energy, errors.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from agentflow.energy.estimate import CallFacts
from agentflow.errors import BackendTimeout, BackendUnavailable, BadReply, RequestRejected

Engine = Literal["vllm", "llama.cpp"]
_PREFIXES: dict[str, Engine] = {"vllm:": "vllm", "llamacpp:": "llama.cpp"}
_LONGEST_PAGE = 8_000_000
_WAIT_S = 3.0
# No count of a server is larger; NaN and infinity are not below it either.
_MOST = 1e30


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """One look at a server's counters. None is not known.

    Args:
        engine: whose dialect it was.
        at_s: seconds of the monotonic clock.
        prompt_tokens: of all prompts so far, cached ones included.
        cached_tokens: of them, those taken from the prefix cache.
        output_tokens: generated so far.
        steps: of the model so far, prefill included.
        sequence_steps: sequences in each step, added up over the steps.
        token_gaps: intervals between two tokens of a reply so far.
        token_gap_s: their seconds, added up.
        running: sequences being served now.
        waiting: sequences in the queue now.
        flop: floating point operations of each GPU so far, as the server estimates them.
        read_bytes: memory bytes read by each GPU so far, likewise.
        write_bytes: written, likewise.
    """

    engine: Engine
    at_s: float
    prompt_tokens: float | None = None
    cached_tokens: float | None = None
    output_tokens: float | None = None
    steps: float | None = None
    sequence_steps: float | None = None
    token_gaps: float | None = None
    token_gap_s: float | None = None
    running: float | None = None
    waiting: float | None = None
    flop: float | None = None
    read_bytes: float | None = None
    write_bytes: float | None = None

    def since(self, before: ServerCounts) -> ServerLoad:
        """What happened between an earlier look and this one. A counter that fell (a restart) makes it unknown."""

        def rise(name: str) -> float | None:
            return _rise(getattr(before, name), getattr(self, name))

        prompt, cached = rise("prompt_tokens"), rise("cached_tokens")
        return ServerLoad(
            seconds=max(self.at_s - before.at_s, 0.0),
            batch=_ratio(rise("sequence_steps"), rise("steps")),
            itl_s=_ratio(rise("token_gap_s"), rise("token_gaps")),
            cached_share=None if cached is None or prompt is None else _ratio(min(cached, prompt), prompt),
            prompt_tokens=prompt,
            output_tokens=rise("output_tokens"),
            flop=rise("flop"),
            read_bytes=rise("read_bytes"),
            write_bytes=rise("write_bytes"),
        )


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What a server did over some seconds. None is not known, or nothing happened.

    Args:
        seconds: between the two looks.
        batch: sequences decoded together, mean over the steps.
        itl_s: seconds between two tokens of a reply, mean.
        cached_share: part of the prompt tokens that came from the prefix cache, 0 to 1.
        prompt_tokens: of the prompts, cached ones included.
        output_tokens: generated.
        flop: floating point operations of each GPU, as the server estimates them.
        read_bytes: memory bytes read by each GPU, likewise.
        write_bytes: written, likewise.
    """

    seconds: float = 0.0
    batch: float | None = None
    itl_s: float | None = None
    cached_share: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    flop: float | None = None
    read_bytes: float | None = None
    write_bytes: float | None = None

    def onto(self, facts: CallFacts) -> CallFacts:
        """The facts of a call made in this time, with the server's batch where the call knows none itself."""
        return facts if self.batch is None or facts.batch is not None else replace(facts, batch=max(self.batch, 1.0))


class ServerMetrics:
    """A server's ``/metrics`` page.

    Args:
        base_url: of the server, with or without ``/v1``.
        model: of several on one page, the one to count; all together when None.
        api_key_env: the environment variable that holds the key, if the page needs one.

    Example::

        metrics = ServerMetrics("http://127.0.0.1:8000/v1")
        before = await metrics.read()
        ...                                     # calls
        load = (await metrics.read()).since(before)
        facts = load.onto(facts)                # the batch that the energy model shares weights by
    """

    def __init__(self, base_url: str, *, model: str | None = None, api_key_env: str | None = None) -> None:
        parts = urlsplit(base_url)
        path = parts.path.rstrip("/").removesuffix("/v1")
        self._url = urlunsplit((parts.scheme, parts.netloc, f"{path}/metrics", "", ""))
        self._where = parts.hostname or "the server"
        self._model = model
        self._key_env = api_key_env
        self._session: aiohttp.ClientSession | None = None

    async def read(self) -> ServerCounts:
        """Look at the counters now.

        Raises:
            BackendUnavailable: the server does not answer.
            BackendTimeout: not within 3 seconds.
            RequestRejected: it has no such page, or refuses it.
            BadReply: what it sent is not a page of metrics of an engine we know.
        """
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        key = os.environ.get(self._key_env or "", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with asyncio.timeout(_WAIT_S):
                async with self._session.get(self._url, headers=headers, allow_redirects=False) as response:
                    self._refuse(response.status)
                    page = await _bounded(response)
        except TimeoutError as error:
            raise BackendTimeout(f"{self._where} gave no metrics within {_WAIT_S:g} s. Is it overloaded?") from error
        except (aiohttp.ClientError, OSError) as error:
            raise BackendUnavailable(
                f"{self._where} gave no metrics ({type(error).__name__}). Is the server running?"
            ) from error
        return parse_metrics(page, model=self._model)

    def _refuse(self, status: int) -> None:
        if status == 200:
            return
        hint = "Start llama-server with --metrics." if status in (404, 501) else "Check the key and the address."
        raise RequestRejected(f"{self._where} answered {status} for its metrics. {hint}")

    async def aclose(self) -> None:
        """Close the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def parse_metrics(page: str, *, model: str | None = None, at_s: float | None = None) -> ServerCounts:
    """A page of metrics in the Prometheus text format, as a neutral record.

    Args:
        page: the text.
        model: of several on one page, the one to count.
        at_s: when it was read, monotonic seconds; now when None.

    Raises:
        BadReply: it is not such a page, or of no engine we know.
    """
    values = _Values(page, model)
    moment = time.monotonic() if at_s is None else at_s
    if values.engine == "vllm":
        return _vllm(values, moment)
    return _llamacpp(values, moment)


class _Values:
    """The samples of a page by name, added up over their labels."""

    def __init__(self, page: str, model: str | None) -> None:
        self.sums: dict[str, float] = {}
        self.by_source: dict[str, float] = {}
        engines: set[Engine] = set()
        for name, labels, value in _samples(page):
            prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
            if prefix is None:
                continue
            engines.add(_PREFIXES[prefix])
            if model is not None and labels.get("model_name", model) != model:
                continue
            name = name.removeprefix(prefix)
            self.sums[name] = self.sums.get(name, 0.0) + value
            if name == "prompt_tokens_by_source_total":
                source = labels.get("source", "")
                self.by_source[source] = self.by_source.get(source, 0.0) + value
        if len(engines) != 1:
            raise BadReply(
                "The page has metrics of no engine we know (vLLM, llama.cpp)."
                if not engines
                else "The page has metrics of two engines at once; name the address of one server."
            )
        self.engine = engines.pop()

    def get(self, *names: str) -> float | None:
        """The first of these names that is there."""
        return next((self.sums[name] for name in names if name in self.sums), None)


def _samples(page: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Name, labels and value of every sample that is a count; a page that cannot be read is refused."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        for family in text_string_to_metric_families(page):
            for sample in cast("Iterable[Any]", family.samples):
                value = float(sample.value)
                if 0 <= value <= _MOST:
                    yield str(sample.name), cast("Mapping[str, str]", sample.labels), value
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadReply(f"The page is not in the Prometheus text format: {str(error)[:80]}.") from error


def _vllm(values: _Values, at_s: float) -> ServerCounts:
    output = values.get("generation_tokens_total")
    cached = values.get("prompt_tokens_cached_total")
    if cached is None and values.by_source:
        cached = sum(count for source, count in values.by_source.items() if source != "local_compute")
    # A step adds a token to each of its sequences, and drafted tokens that were accepted on top.
    accepted = values.get("spec_decode_num_accepted_tokens_total") or 0.0
    return ServerCounts(
        "vllm",
        at_s,
        prompt_tokens=values.get("prompt_tokens_total"),
        cached_tokens=values.get("prefix_cache_hits_total") if cached is None else cached,
        output_tokens=output,
        steps=values.get("iteration_tokens_total_count"),
        sequence_steps=None if output is None else max(output - accepted, 0.0),
        token_gaps=values.get("inter_token_latency_seconds_count", "time_per_output_token_seconds_count"),
        token_gap_s=values.get("inter_token_latency_seconds_sum", "time_per_output_token_seconds_sum"),
        running=values.get("num_requests_running"),
        waiting=values.get("num_requests_waiting"),
        # Zero for ever without --enable-mfu-metrics: not known.
        flop=values.get("estimated_flops_per_gpu_total") or None,
        read_bytes=values.get("estimated_read_bytes_per_gpu_total") or None,
        write_bytes=values.get("estimated_write_bytes_per_gpu_total") or None,
    )


def _llamacpp(values: _Values, at_s: float) -> ServerCounts:
    computed, cached = values.get("prompt_tokens_total"), values.get("prompt_tokens_cached_total")
    output = values.get("tokens_predicted_total")
    steps, busy = values.get("n_decode_total"), values.get("n_busy_slots_per_decode")
    return ServerCounts(
        "llama.cpp",
        at_s,
        # Unlike vLLM's, this server's prompt tokens leave the cached ones out.
        prompt_tokens=None if computed is None or cached is None else computed + cached,
        cached_tokens=cached,
        output_tokens=output,
        steps=steps,
        sequence_steps=None if steps is None or busy is None else steps * busy,
        token_gaps=output,
        token_gap_s=values.get("tokens_predicted_seconds_total"),
        running=values.get("requests_processing"),
        waiting=values.get("requests_deferred"),
    )


def load_of_reply(body: Mapping[str, Any]) -> ServerLoad:
    """What one reply says of its own speed: llama.cpp's ``timings``, or vLLM's ``metrics``.

    Args:
        body: the reply's JSON, or a stream's last chunk. vLLM needs --enable-per-request-metrics to send ``metrics``.
    """
    timings, metrics = _mapping(body.get("timings")), _mapping(body.get("metrics"))
    if timings:
        cached, computed = _number(timings.get("cache_n")), _number(timings.get("prompt_n"))
        prompt = None if cached is None or computed is None else cached + computed
        output, milliseconds = _number(timings.get("predicted_n")), _number(timings.get("predicted_ms"))
        gaps = None if output is None else output - 1
        return ServerLoad(
            seconds=((_number(timings.get("prompt_ms")) or 0.0) + (milliseconds or 0.0)) / 1000,
            # The first token comes out of the prompt's own step.
            itl_s=_ratio(None if milliseconds is None else milliseconds / 1000, gaps),
            cached_share=_ratio(cached, prompt),
            prompt_tokens=prompt,
            output_tokens=output,
        )
    if metrics:
        itl_ms, whole_ms = _number(metrics.get("mean_itl_ms")), _number(metrics.get("generation_time_ms"))
        return ServerLoad(seconds=(whole_ms or 0.0) / 1000, itl_s=None if not itl_ms else itl_ms / 1000)
    return ServerLoad()


async def _bounded(response: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for block in response.content.iter_chunked(65_536):
        body += block
        if len(body) > _LONGEST_PAGE:
            raise BadReply(f"The page of metrics is larger than {_LONGEST_PAGE:,} bytes.")
    return body.decode("utf-8", "replace")


def _rise(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None or now < before else now - before


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or whole is None or whole <= 0 else part / whole


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        return None
    return float(value)


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}
