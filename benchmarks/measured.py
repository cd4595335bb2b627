"""Runs one command and prints its wall clock, peak memory and exit code as JSON.

``python -m benchmarks.measured OUTPUT COMMAND...`` writes what the command prints to the file OUTPUT. It is a process
of its own because Linux counts the memory of whoever starts a command into that command's peak, and this one is small.
Imports only the standard library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    output, *command = sys.argv[1:]
    with Path(output).open("wb") as sink:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=sink)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    # Linux counts in kilobytes, macOS in bytes.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1e6, "exit": process.returncode}))


if __name__ == "__main__":
    main()
