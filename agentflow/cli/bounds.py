"""Options that bound what a research job reads: the same for ``research`` and ``jobs submit``. Imports jobs, click."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from agentflow.jobs.sources import SourceBounds

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--after", metavar="DAY", help="Only sources of this day or later, as 2026-01-31."),
    click.option("--before", metavar="DAY", help="Only sources of this day or earlier."),
    click.option(
        "--undated", type=click.Choice(["skip", "keep"]), default="skip", help="Sources that nothing gives a day."
    ),
    click.option(
        "--include-domain", multiple=True, metavar="DOMAIN", help="Only pages of this domain; may be repeated."
    ),
    click.option("--exclude-domain", multiple=True, metavar="DOMAIN", help="No pages of this domain; may be repeated."),
    click.option("--no-network", is_flag=True, help="Fetch no page."),
)


def source_bounds(command: Command) -> Command:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def bounds_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """What these options say, as fields of ``JobSources``."""
    given = {
        "after": options["after"], "before": options["before"], "undated": options["undated"],
        "include_domains": options["include_domain"], "exclude_domains": options["exclude_domain"],
        "allow_network": not options["no_network"],
    }  # fmt: skip
    return {name: given[name] for name in SourceBounds.model_fields}
