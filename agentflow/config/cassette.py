"""``[cassette]``: runs recorded to a file, and replayed without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from agentflow.config.table import Table


class CassetteSettings(Table):
    """Where the exchanges with models are recorded, or replayed from."""

    path: Path
    """The file."""
    mode: Literal["record", "replay", "auto"] = "auto"
    """``record``: to a new file; ``replay``: from the file alone, nobody is contacted; ``auto``: what the file has is
    replayed, the rest asked and added."""
