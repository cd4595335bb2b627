"""llama.cpp's server object in this process: opened, asked, and asked about itself. Imports gguf, errors.

The one file that knows xllamacpp. Its object also listens on a loopback port, which is locked with a key that nobody is
told; through it, prompts are counted as the model counts them.
"""

from __future__ import annotations

import functools
import http.client
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from agentflow.backends.gguf import fault
from agentflow.errors import BackendError, ConfigError, RequestRejected

_ASK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Opening:
    """How a model is opened.

    Args:
        path: the .gguf file.
        context: tokens of context, over all slots together.
        slots: calls served side by side.
        threads: CPU threads of one call.
        gpu_layers: layers computed on a GPU; what fits when None, nothing when 0.
        key: what a client of the loopback port must know; empty: nothing.
    """

    path: Path
    context: int = 4096
    slots: int = 1
    threads: int = 1
    gpu_layers: int | None = None
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)


class LlamaServer:
    """A loaded model. Every method blocks, and computes with the GIL released.

    Raises:
        ConfigError: the library or a GPU that was asked for is not there, or the file cannot be loaded.
    """

    def __init__(self, opening: Opening) -> None:
        self._key = opening.key
        self._server = _open(opening)
        self.address: str = self._server.listening_address

    def chat(self, body: Mapping[str, Any], on_chunk: Callable[[Any], bool]) -> Any:
        """Generate a reply.

        Args:
            body: as of POST /v1/chat/completions, with ``stream``.
            on_chunk: given a chunk or a list of them; returns whether to stop.

        Raises:
            RequestRejected: the request makes no sense to llama.cpp.
        """
        try:
            return self._server.handle_chat_completions(dict(body), on_chunk)
        except (ValueError, TypeError) as error:
            raise RequestRejected(f"llama.cpp refused the request: {str(error).splitlines()[0][:200]}") from error

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Tokens of a prompt, as the model's own template and tokenizer make them."""
        asked = {name: value for name, value in body.items() if name in ("messages", "tools", "response_format")}
        return int(self._ask("POST", "/v1/chat/completions/input_tokens", asked)["input_tokens"])

    @functools.cached_property
    def shows_tools(self) -> bool:
        """Whether the model's chat template has a place for definitions of tools; else they are dropped in silence."""
        return bool(self._ask("GET", "/props").get("chat_template_caps", {}).get("supports_tools"))

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_ASK_S)
        try:
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            found: Any = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BackendError(f"llama.cpp does not answer about itself: {type(error).__name__}.") from error
        finally:
            connection.close()
        if response.status != 200 or not isinstance(found, dict):
            raise BackendError(f"llama.cpp answered {response.status} about itself, to {path}.")
        return cast("dict[str, Any]", found)


def library() -> Any:
    """The module xllamacpp.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import xllamacpp
    except ImportError as error:
        raise ConfigError("xllamacpp is not installed. Run: pip install 'agentflow[local]'") from error
    return xllamacpp


def gpus() -> tuple[str, ...]:
    """The GPUs that llama.cpp, as it was built, can compute on.

    Raises:
        ConfigError: it is not installed.
    """
    devices: list[dict[str, Any]] = library().get_device_info()
    return tuple(str(device["description"]) for device in devices if "GPU" in device["type"].name)


def _open(opening: Opening) -> Any:
    module = library()
    if opening.gpu_layers and not gpus():
        raise ConfigError(
            f"{opening.gpu_layers} layers of {opening.path.name} are to be on a GPU, and this llama.cpp sees none. "
            "Install a build of xllamacpp for your GPU (CUDA, ROCm, Vulkan), or set gpu_layers = 0."
        )
    params = module.CommonParams()
    params.model.path, params.model_alias = str(opening.path), {opening.path.stem}
    params.n_ctx, params.n_parallel = opening.context, opening.slots
    params.cpuparams.n_threads = opening.threads
    params.warmup, params.verbosity = False, -1
    params.endpoint_props = params.endpoint_metrics = params.endpoint_slots = True
    if opening.gpu_layers is not None:
        params.n_gpu_layers = opening.gpu_layers
    if opening.key:
        params.api_keys = [opening.key]
    try:
        return module.Server(params)
    except RuntimeError as error:
        raise ConfigError(
            f"llama.cpp cannot load {opening.path}: {fault(opening.path)}. Download it anew, or name another file."
        ) from error
