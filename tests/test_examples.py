"""Every example runs as its first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

ARGUMENTS = {
    "research_with_a_budget.py": (["How does agentflow keep a chain from overspending?", "docs", "README.md"], "$0"),
    "cascade_on_confidence.py": (["3+4", "12+7"], "3+4 = 7 by small"),
}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in (PROJECT / "examples").glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_example_runs(name: str, here: Path) -> None:
    for place in ("docs", "README.md"):
        (here / place).symlink_to(PROJECT / place)
    arguments, words = ARGUMENTS[name]
    done = subprocess.run(
        [sys.executable, str(PROJECT / "examples" / name), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
