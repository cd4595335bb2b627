"""Tables of figures against their limits, for people or as JSON. Imports only the standard library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One figure and what it is held against. ``passed`` is None where there is no limit."""

    what: str
    value: str
    against: str = ""
    passed: bool | None = None


def show(title: str, figures: Sequence[Figure], notes: Sequence[str] = (), *, as_json: bool = False) -> int:
    """Print the figures; the exit code is 1 when one misses its limit."""
    missed = [figure for figure in figures if figure.passed is False]
    if as_json:
        print(json.dumps({"title": title, "figures": [asdict(f) for f in figures], "notes": list(notes)}, indent=2))
        return 1 if missed else 0
    print(title)
    verdicts: Mapping[bool | None, str] = {True: "pass", False: "MISSED", None: ""}
    rows = [(f.what, f.value, f.against, verdicts[f.passed]) for f in figures]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in notes:
        print(f"  {note}")
    return 1 if missed else 0
