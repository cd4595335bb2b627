"""llama.cpp's own HTTP server with a tiny rung, in a process of its own: it may not end before its clients do."""

from __future__ import annotations

import threading

from agentflow.backends.llamacpp import _server
from tests.conftest import RUNGS

if __name__ == "__main__":
    server = _server(RUNGS / "large.gguf", context=256, slots=1, threads=1)
    print(server.listening_address.rsplit(":", 1)[1], flush=True)
    threading.Event().wait()
