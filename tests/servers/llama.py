"""llama.cpp's own HTTP server with a tiny rung, in a process of its own: it may not end before its clients do."""

from __future__ import annotations

import threading

from agentflow.backends.llamacpp_server import LlamaServer, Opening
from tests.conftest import RUNGS

# Room to generate for longer than a test takes to leave.
CONTEXT = 8192

if __name__ == "__main__":
    server = LlamaServer(Opening(RUNGS / "large.gguf", context=CONTEXT, key=""))
    print(server.address.rsplit(":", 1)[1], flush=True)
    threading.Event().wait()
