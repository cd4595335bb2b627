"""llama.cpp inside this process (extra ``local``). Imports wire, base, errors; ``llamacpp_server`` knows the library.

Its server object computes with the GIL released, in worker threads of our own. Leaving a call early stops its
generation within a token.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentflow.backends.base import Probe
from agentflow.backends.gguf import is_gguf
from agentflow.backends.ignored import is_chosen
from agentflow.backends.llamacpp_server import LlamaServer, Opening, gpus
from agentflow.backends.wire import Gathered, forced_alone, request_json, seconds, usage_of
from agentflow.errors import BackendError, BackendTimeout, BadReply, ConfigError, ContextOverflow, RequestRejected
from agentflow.messages import Completion, Delta, Request, Timings, TokenUsage


@dataclass(frozen=True, slots=True)
class _Generated:
    """A reply as it came out of the worker thread."""

    gathered: Gathered
    first_s: float | None
    ignored: tuple[str, ...]


class LlamaCppBackend:
    """A GGUF model in this process.

    Args:
        path: the model file.
        context: tokens of context, divided over the slots.
        slots: calls served side by side; more wait their turn.
        threads: CPU threads of one call; more than the free cores makes it slower, not faster.
        gpu_layers: layers computed on a GPU; what fits when None, nothing when 0.

    Raises:
        ConfigError: there is no such file, or it is no GGUF file.
    """

    provider = "llama_cpp"
    in_process = True

    def __init__(
        self, path: Path, *, context: int = 4096, slots: int = 1, threads: int = 1, gpu_layers: int | None = None
    ) -> None:
        if not path.is_file():
            raise ConfigError(f"No model file at {path}. Set the model's path to a .gguf file.")
        try:
            sound = is_gguf(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}. Check who may read it.") from error
        if not sound:
            raise ConfigError(f"{path} is not a GGUF file. Convert the model, or download its .gguf file.")
        self._opening = Opening(path, context, slots, threads, gpu_layers)
        self._server: LlamaServer | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._loading = threading.Lock()

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Generate a reply, within ``request.timeout_s``; the model is loaded on the first call.

        Raises:
            BackendError: as the subclass that says whether it may have cost something.
            ConfigError: the model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        started = time.monotonic()
        try:
            async with asyncio.timeout(request.timeout_s):
                generated = await loop.run_in_executor(
                    self._threads(), self._generate, model, request, stop, _in_loop(loop, tell, stop)
                )
        except TimeoutError as error:
            raise BackendTimeout(
                f"'{model}' gave no whole reply within {request.timeout_s} s. Raise the model's timeout_s."
            ) from error
        finally:
            stop.set()
        return self._completion(model, generated, time.monotonic() - started)

    async def prompt_tokens(self, request: Request) -> int:
        """Tokens of a prompt exactly as the model's own template and tokenizer make them; nothing is generated.

        Raises:
            BackendError: llama.cpp cannot render it.
            ConfigError: the model cannot be loaded.
        """
        body = request_json("", request)
        return await asyncio.get_running_loop().run_in_executor(
            self._threads(), lambda: self._load().prompt_tokens(body)
        )

    def _completion(self, model: str, generated: _Generated, total_s: float) -> Completion:
        gathered = generated.gathered
        prefill_s, decode_s = seconds(gathered.timings, "prompt_ms"), seconds(gathered.timings, "predicted_ms")
        usage = usage_of(gathered.usage)
        if usage is None:
            raise BadReply(f"llama.cpp sent no usage for '{model}'.")
        busy_s = (prefill_s or 0.0) + (decode_s or 0.0) or total_s
        return Completion(
            text="".join(gathered.text),
            model=model,
            usage=TokenUsage(usage.input, usage.output, usage.cached_input, source="server"),
            timings=Timings(total_s, generated.first_s, prefill_s, decode_s, cpu_s=busy_s * self._opening.threads),
            finish_reason=gathered.finish or "stop",
            id=gathered.id,
            tool_calls=gathered.tool_calls(),
            logprobs=tuple(gathered.logprobs) or None,
            tokens=tuple(gathered.tokens) or None,
            ignored=generated.ignored,
        )

    def _generate(
        self, model: str, request: Request, stop: threading.Event, tell: Callable[[Delta], None] | None
    ) -> _Generated:
        """In a worker thread: run the request to its end, or until ``stop``."""
        server = self._load()
        started = time.monotonic()
        gathered, first_s = Gathered(tell, request.top_logprobs is not None), None
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
        forced_alone(body, request)
        result = server.chat(body, on_chunk)
        if failures:
            raise failures[0]
        _raise_error(result, model)
        return _Generated(gathered, first_s, _ignored(server, request, gathered))

    def _load(self) -> LlamaServer:
        with self._loading:
            if self._server is None:
                self._server = LlamaServer(self._opening)
            return self._server

    def _threads(self) -> ThreadPoolExecutor:
        # The loop's own threads are for short work, and others count on them.
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._opening.slots, thread_name_prefix="llama.cpp")
        return self._pool

    async def probe(self) -> Probe:
        """Whether the library is there, and what it computes on; the model is not loaded for it."""
        try:
            found = await asyncio.to_thread(gpus)
        except ConfigError as error:
            return Probe(False, str(error))
        if self._opening.gpu_layers and not found:
            return Probe(False, f"gpu_layers is {self._opening.gpu_layers}, and this llama.cpp sees no GPU")
        path = self._opening.path
        where = ", ".join(found) if found and self._opening.gpu_layers != 0 else "CPU"
        return Probe(True, f"{path.name}, {path.stat().st_size / 1e6:,.1f} MB, in this process, on {where}")

    async def aclose(self) -> None:
        """Free the model and the threads."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        self._server = None


def _in_loop(
    loop: asyncio.AbstractEventLoop, tell: Callable[[Delta], None] | None, stop: threading.Event
) -> Callable[[Delta], None] | None:
    """The same listener, called from a worker thread; whoever has left is told nothing more."""
    if tell is None:
        return None

    def in_loop(delta: Delta) -> None:
        if not stop.is_set():
            tell(delta)

    def pass_on(delta: Delta) -> None:
        if not stop.is_set():
            loop.call_soon_threadsafe(in_loop, delta)

    return pass_on


def _ignored(server: LlamaServer, request: Request, gathered: Gathered) -> tuple[str, ...]:
    """What of a request llama.cpp passes over in silence."""
    found = [name for name in ("priority", "cache_salt") if getattr(request, name) is not None]
    if request.sampling.reasoning_effort is not None:
        found.append("reasoning_effort")
    # Its grammar does not hold every template to a call.
    if not is_chosen(request, gathered.tool_calls()):
        found.append("tool_choice")
    return tuple(found if not request.tools or server.shows_tools else ["tools", *found])


def _raise_error(chunk: Any, model: str) -> None:
    if not isinstance(chunk, dict) or "error" not in chunk:
        return
    error = cast("dict[str, Any]", chunk)["error"]
    if error.get("type") == "exceed_context_size_error":
        raise ContextOverflow(
            f"The prompt of '{model}' has {error.get('n_prompt_tokens')} tokens; its context is {error.get('n_ctx')}. "
            "Shorten the prompt, or raise the model's context, if it was trained for more."
        )
    message = str(error.get("message", error))[:200]
    if error.get("code") in (400, 404, 422) or "not supported" in message:
        raise RequestRejected(f"llama.cpp refused the request for '{model}': {message}.")
    if "does not match the expected" in message:
        raise BadReply(f"'{model}' wrote something that is no reply of its chat template: {message}.")
    raise BackendError(f"llama.cpp failed for '{model}': {message}.")
