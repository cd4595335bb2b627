"""The JSON schema of report.json, as published in the documentation."""

from __future__ import annotations

import json

from agentflow.research.report import Report


def schema_text() -> str:
    """The schema as text, stable from run to run."""
    return json.dumps(Report.model_json_schema(), indent=2, sort_keys=True) + "\n"
