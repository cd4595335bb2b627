"""llama.cpp's own HTTP server with a tiny rung, two slots and its metrics page, in a process of its own."""

from __future__ import annotations

import threading
from typing import Any, cast

import xllamacpp

from tests.conftest import RUNGS

if __name__ == "__main__":
    params: Any = cast(Any, xllamacpp).CommonParams()
    params.model.path, params.model_alias = str(RUNGS / "small.gguf"), {"small"}
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 512, 2, 1
    params.warmup, params.verbosity, params.endpoint_metrics = False, -1, True
    server = cast(Any, xllamacpp).Server(params)
    print(server.listening_address.rsplit(":", 1)[1], flush=True)
    threading.Event().wait()
