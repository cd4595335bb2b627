"""How long it takes to start, against a bare interpreter in the same run: ``python -m benchmarks.startup [--json]``

Medians of fresh processes, taken in turns. Exit code 1 when ``import agentflow`` or ``agentflow --help`` takes 0.3 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.table import Figure, show

LIMIT_S = 0.3
BARE = "python -c pass"
COMMANDS = {
    BARE: [sys.executable, "-c", "pass"],
    "import agentflow": [sys.executable, "-c", "import agentflow"],
    "agentflow --help": [str(Path(sys.executable).with_name("agentflow")), "--help"],
}


def main() -> int:
    """Run the commands in turns and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=15, help="fresh processes of each command")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(asked.runs):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    figures = [Figure(BARE, f"{medians[BARE]:.3f} s")]
    for name, taken in medians.items():
        if name != BARE:
            against = f"limit {LIMIT_S} s; {taken / medians[BARE]:.1f} x {BARE}"
            figures.append(Figure(name, f"{taken:.3f} s", against, passed=taken < LIMIT_S))
    return show("Start-up", figures, as_json=asked.json)


def seconds(command: list[str]) -> float:
    """Wall clock of one fresh process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
