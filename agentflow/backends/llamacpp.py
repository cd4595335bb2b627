"""llama.cpp inside this process, through xllamacpp (extra ``local``). Imports wire, base, errors.

The library's server object computes with the GIL released, in worker threads of our own. Leaving a call early
stops its generation within a token.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from agentflow.backends.base import Probe
from agentflow.backends.wire import Gathered, request_json, seconds, usage_of
from agentflow.errors import BackendError, BackendTimeout, BadReply, ConfigError, ContextOverflow, RequestRejected
from agentflow.messages import Completion, Delta, Request, Timings, TokenUsage


class LlamaCppBackend:
    """A GGUF model in this process.

    Args:
        path: the model file.
        context: tokens of context, divided over the slots.
        slots: calls served side by side.
        threads: CPU threads of one call; more than the free cores makes it slower, not faster.

    Raises:
        ConfigError: there is no such file.
    """

    provider = "llama_cpp"
    in_process = True

    def __init__(self, path: Path, *, context: int = 4096, slots: int = 1, threads: int = 1) -> None:
        if not path.is_file():
            raise ConfigError(f"No model file at {path}. Set the model's path to a .gguf file.")
        self._path = path
        self._context = context
        self._slots = slots
        self._threads = threads
        self._server: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._loading = threading.Lock()

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Generate a reply, within ``request.timeout_s``; the model is loaded on the first call.

        Raises:
            BackendError: as the subclass that says whether it may have cost something.
        """
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._slots, thread_name_prefix="llama.cpp")
        started = time.monotonic()
        try:
            async with asyncio.timeout(request.timeout_s):
                gathered, first_s = await loop.run_in_executor(
                    self._pool, self._generate, model, request, stop, _in_loop(loop, tell)
                )
        except TimeoutError as error:
            raise BackendTimeout(f"'{model}' gave no whole reply within {request.timeout_s} s.") from error
        finally:
            stop.set()
        total_s = time.monotonic() - started
        prefill_s, decode_s = seconds(gathered.timings, "prompt_ms"), seconds(gathered.timings, "predicted_ms")
        usage = usage_of(gathered.usage)
        if usage is None:
            raise BadReply(f"llama.cpp sent no usage for '{model}'.")
        usage = TokenUsage(usage.input, usage.output, usage.cached_input, source="server")
        busy_s = (prefill_s or 0.0) + (decode_s or 0.0) or total_s
        return Completion(
            text="".join(gathered.text),
            model=model,
            usage=usage,
            timings=Timings(total_s, first_s, prefill_s, decode_s, cpu_s=busy_s * self._threads),
            finish_reason=gathered.finish or "stop",
            id=gathered.id,
            tool_calls=gathered.tool_calls(),
            logprobs=tuple(gathered.logprobs) or None,
        )

    def _generate(
        self, model: str, request: Request, stop: threading.Event, tell: Callable[[Delta], None] | None
    ) -> tuple[Gathered, float | None]:
        """In a worker thread: run the request to its end, or until ``stop``."""
        server = self._load()
        started = time.monotonic()
        gathered, first_s = Gathered(tell), None
        failures: list[BackendError] = []

        def on_chunk(data: Any) -> bool:
            nonlocal first_s
            try:
                for chunk in cast("list[Any]", data if isinstance(data, list) else [data]):
                    _raise_error(chunk, model)
                    if gathered.add(chunk) and first_s is None:
                        first_s = time.monotonic() - started
            except BackendError as error:
                failures.append(error)
                return True
            return stop.is_set()

        body = request_json(model, request) | {"stream": True, "stream_options": {"include_usage": True}}
        result = server.handle_chat_completions(body, on_chunk)
        if failures:
            raise failures[0]
        _raise_error(result, model)
        return gathered, first_s

    def _load(self) -> Any:
        with self._loading:
            if self._server is None:
                self._server = _server(self._path, self._context, self._slots, self._threads)
            return self._server

    async def probe(self) -> Probe:
        """Whether the library is there; the model is not loaded for it."""
        try:
            import xllamacpp  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ImportError:
            return Probe(False, "xllamacpp is not installed: pip install 'agentflow[local]'")
        size = self._path.stat().st_size / 1e6
        return Probe(True, f"{self._path.name}, {size:,.1f} MB, in this process")

    async def aclose(self) -> None:
        """Free the model and the threads."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        self._server = None


def _in_loop(loop: asyncio.AbstractEventLoop, tell: Callable[[Delta], None] | None) -> Callable[[Delta], None] | None:
    """The same listener, called from a worker thread."""
    if tell is None:
        return None

    def pass_on(delta: Delta) -> None:
        loop.call_soon_threadsafe(tell, delta)

    return pass_on


def _server(path: Path, context: int, slots: int, threads: int) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise ConfigError("llama.cpp is not installed. Run: pip install 'agentflow[local]'") from error
    params: Any = cast(Any, xllamacpp).CommonParams()
    params.model.path, params.model_alias = str(path), {path.stem}
    params.n_ctx, params.n_parallel = context, slots
    params.cpuparams.n_threads = threads
    params.warmup, params.verbosity = False, -1
    try:
        return cast(Any, xllamacpp).Server(params)
    except RuntimeError as error:
        raise ConfigError(f"llama.cpp cannot load {path}: {error}. Is it a whole GGUF file?") from error


def _raise_error(chunk: Any, model: str) -> None:
    if not isinstance(chunk, dict) or "error" not in chunk:
        return
    error = cast("dict[str, Any]", chunk)["error"]
    if error.get("type") == "exceed_context_size_error":
        raise ContextOverflow(
            f"The prompt of '{model}' has {error.get('n_prompt_tokens')} tokens; its context is {error.get('n_ctx')}. "
            "Shorten the prompt, or raise the model's context."
        )
    message = str(error.get("message", error))[:200]
    if error.get("code") in (400, 404, 422):
        raise RequestRejected(f"llama.cpp refused the request for '{model}': {message}.")
    raise BackendError(f"llama.cpp failed for '{model}': {message}.")
