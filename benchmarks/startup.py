"""How long agentflow takes to start: ``python -m benchmarks.startup``

Importing the package and asking the command for its help, each in fresh processes, alternately with a Python that
does nothing, whose own time is part of both. Exit code 1 when a limit is missed. Imports only the standard library.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.table import Figure, show

LIMIT_S = 0.3
_ROUNDS = 11


def main() -> int:
    """Run each command in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="fresh processes of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    program = shutil.which("agentflow", path=str(Path(sys.executable).parent))
    if program is None:
        parser.error("the agentflow command is not beside this Python; run make setup")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import agentflow": [sys.executable, "-c", "import agentflow"],
        "agentflow --help": [program, "--help"],
    }
    # The first start of each reads files that the others find in memory.
    for command in commands.values():
        seconds_of(command)
    timings: dict[str, list[float]] = {what: [] for what in commands}
    for _ in range(asked.rounds):
        for what, command in commands.items():
            timings[what].append(seconds_of(command))
    medians = {what: statistics.median(seconds) for what, seconds in timings.items()}
    bare = medians.pop("python -c pass")
    figures = [Figure("python -c pass", f"{bare:.3f} s")]
    for what, median in medians.items():
        against = f"under {LIMIT_S:g} s ({median - bare:+.3f} s over python -c pass)"
        figures.append(Figure(what, f"{median:.3f} s", against, median < LIMIT_S))
    return show("startup", figures, [f"median of {asked.rounds} fresh processes each"], as_json=asked.json)


def seconds_of(command: list[str]) -> float:
    """Wall clock of one run."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
