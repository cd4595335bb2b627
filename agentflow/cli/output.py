"""How a research job's result is to be: options of ``research`` and ``jobs``. Imports research.output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from agentflow.errors import UsageError
from agentflow.research.output import JobOutput

Function = TypeVar("Function", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--max-words", type=int, help="Most words of the answer; whole claims are left out from the end."),
    click.option("--language", metavar="TAG", help="Translate the verified claims, as into de or pt-BR."),
    click.option("--citations", type=click.Choice(["numbers", "footnotes", "links"]), default="numbers"),
    click.option("--schema", type=click.Path(path_type=Path), help="A JSON Schema to fill from the verified claims."),
    click.option(
        "--verify", type=click.Choice(["quotes", "judged"]), default="quotes",
        help="judged: a model judges every claim against its quotes, too.",
    ),
)  # fmt: skip
_FLAGS = {"json_schema": "schema"}


def output_options(command: Function) -> Function:
    """Give a command the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def output_of(options: dict[str, Any]) -> JobOutput:
    """What the options ask for.

    Raises:
        UsageError: an option's value cannot be, or the schema's file cannot be read.
    """
    asked = {name: options[name] for name in ("max_words", "language", "citations")}
    schema: Path | None = options["schema"]
    try:
        if schema is not None:
            asked["json_schema"] = json.loads(schema.read_text("utf-8"))
        return JobOutput(**asked)
    except OSError as error:
        raise UsageError(f"--schema: {schema} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        flag = str(fault["loc"][0]) if fault["loc"] else "schema"
        message = fault["msg"].removeprefix("Value error, ")
        raise UsageError(f"--{_FLAGS.get(flag, flag).replace('_', '-')}: {message}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--schema: {schema} is not JSON: {error}.") from error
