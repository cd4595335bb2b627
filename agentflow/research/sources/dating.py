"""Dating: the day that a document tells of itself. Nothing is guessed from its prose. Imports source."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

from agentflow.research.sources.source import SourceDate

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?P<facts>.{0,4000}?)\n---[ \t]*$", re.DOTALL | re.MULTILINE)
_DATE_LINE = re.compile(r"^date:[ \t]*[\"']?(?P<day>\d{4}-\d{2}-\d{2})", re.MULTILINE | re.IGNORECASE)
_EARLIEST = "1900-01-01"


def date_in_page(tree: Any) -> SourceDate | None:
    """The day on which a page says it was published: meta elements, JSON-LD, time elements.

    Args:
        tree: the parsed page (lxml).
    """
    import htmldate

    # What a page lacks must not cost its text, whatever the search trips over.
    with suppress(Exception):
        found = htmldate.find_date(tree, extensive_search=False, original_date=True, min_date=_EARLIEST)
        return None if found is None else SourceDate(date.fromisoformat(found), "page")
    return None


def date_in_facts(facts: Any, *names: str) -> SourceDate | None:
    """The first of these facts that is a moment; a parser raises anything over one that is not."""
    for name in names:
        with suppress(Exception):
            found = getattr(facts, name)
            if isinstance(found, datetime):
                return SourceDate((found.astimezone(UTC) if found.tzinfo else found).date(), "document")
    return None


def date_in_text(text: str, media_type: str) -> SourceDate | None:
    """The ``date`` in the front matter of a Markdown file."""
    if media_type != "text/markdown" or (front := _FRONT_MATTER.match(text[:5_000])) is None:
        return None
    line = _DATE_LINE.search(front.group("facts"))
    with suppress(ValueError):
        return None if line is None else SourceDate(date.fromisoformat(line.group("day")), "document")
    return None
