"""``agentflow energy``: joules, explained and measured. A command's file is loaded when it is run."""

from __future__ import annotations

import importlib

import click

_COMMANDS = {
    "explain": ("energy_explain", "Say where a call's joules come from, line by line."),
    "probe": ("energy_probe", "Measure this machine for some seconds, and say what can be measured here."),
    "plot": ("energy_plot", "Draw the joules of an earlier job by stage."),
}


class _EnergyGroup(click.Group):
    """A group that imports a command's file when the command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"agentflow.cli.{_COMMANDS[cmd_name][0]}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in _COMMANDS.items()])


@click.group("energy", cls=_EnergyGroup)
def command() -> None:
    """Joules: what was used, how that is known, what can be measured here."""
