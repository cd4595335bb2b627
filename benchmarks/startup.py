"""How long it takes to start, against a bare interpreter in the same run: ``python -m benchmarks.startup [--json]``

Medians of fresh processes, taken in turns. Exit code 1 when ``import agentflow`` or ``agentflow --help`` takes 0.3 s,
or when a command that opens the database takes three times as long as importing the libraries that it needs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.table import Figure, show

LIMIT_S = 0.3
BARE = "python -c pass"
AGENTFLOW = (sys.executable, "-m", "agentflow")
DATABASE = "python -c 'import click, pydantic_settings, sqlalchemy'"
# What opens the database, against DATABASE.
MOST_RATIO = 3.0
OPENS = ("agentflow keys list", "agentflow jobs list")
COMMANDS = {
    BARE: [sys.executable, "-c", "pass"],
    "import agentflow": [sys.executable, "-c", "import agentflow"],
    "agentflow --help": [*AGENTFLOW, "--help"],
    DATABASE: [sys.executable, "-c", "import click, pydantic_settings, sqlalchemy"],
    **{name: [*AGENTFLOW, *name.split()[1:]] for name in OPENS},
}


def main() -> int:
    """Run the commands in turns and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=15, help="fresh processes of each command")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.runs):
            for name, command in COMMANDS.items():
                times[name].append(seconds(command, folder))
    medians = {name: statistics.median(values) for name, values in times.items()}
    figures = [Figure(BARE, f"{medians[BARE]:.3f} s")]
    for name, taken in medians.items():
        if name in OPENS:
            ratio = taken / medians[DATABASE]
            against = f"{ratio:.1f} x {DATABASE}, at most {MOST_RATIO}"
            figures.append(Figure(name, f"{taken:.3f} s", against, passed=ratio <= MOST_RATIO))
        elif name not in (BARE, DATABASE):
            against = f"limit {LIMIT_S} s; {taken / medians[BARE]:.1f} x {BARE}"
            figures.append(Figure(name, f"{taken:.3f} s", against, passed=taken < LIMIT_S))
    return show("Start-up", figures, as_json=asked.json)


def seconds(command: list[str], folder: str) -> float:
    """Wall clock of one fresh process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
