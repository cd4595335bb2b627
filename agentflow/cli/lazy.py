"""A group of commands whose files are imported when they are run, so that --help is quick. Imports click."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that imports a command's file when the command is run.

    Args:
        package: where its files are; each is named like its command and offers it as ``command``.
        summaries: its commands, and what each does in a line.
    """

    def __init__(self, *args: Any, package: str, summaries: Mapping[str, str], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._package = package
        self._summaries = summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now."""
        if cmd_name not in self._summaries:
            return None
        command: click.Command = importlib.import_module(f"{self._package}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))
