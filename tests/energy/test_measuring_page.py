"""The page docs/measuring.md: its code runs, and what it prints is what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import get_args

from agentflow.energy.probes.window import Reason
from tests.conftest import PROJECT

PAGE = (PROJECT / "docs" / "measuring.md").read_text("utf-8")


def test_the_code_on_the_page_runs():
    printed: list[str] = []
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=PROJECT)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert len(printed) == 4
    assert "66 life-cycle" in printed[2]
    assert "238 g/kWh" in printed[3]
    assert "does not answer" in printed[3]


def test_every_reason_is_explained_on_the_page():
    for reason in get_args(Reason):
        assert reason == "ok" or f"`{reason}`" in PAGE
