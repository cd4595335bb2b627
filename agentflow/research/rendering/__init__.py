"""A report for people: Markdown, one self-contained page, the terminal. ``numbering`` is what all three share."""

from agentflow.research.rendering.markdown import to_markdown
from agentflow.research.rendering.page import to_html
from agentflow.research.rendering.schema import schema_text

__all__ = ["schema_text", "to_html", "to_markdown"]
