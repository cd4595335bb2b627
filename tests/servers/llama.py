"""llama.cpp's own HTTP server with a tiny rung, in a process of its own: it may not end before its clients do.

Its context is made so long that it can generate for longer than a test takes to leave.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from agentflow.backends.llamacpp_server import LlamaServer, Opening
from tests.conftest import RUNGS
from tests.servers.remade import remade

CONTEXT = 8192

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        model = remade(RUNGS / "large.gguf", Path(folder, "large.gguf"), context_length=CONTEXT)
        server = LlamaServer(Opening(model, context=CONTEXT, key=""))
    print(server.address.rsplit(":", 1)[1], flush=True)
    threading.Event().wait()
