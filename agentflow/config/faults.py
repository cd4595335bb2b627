"""Telling a fault of the configuration in one line: where it stands, which key, what is allowed. Imports nothing.

Positions are found in the text of the file, because a TOML reader keeps none. ``config`` is what uses this.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_PART = r"""(?:"[^"\n]*"|'[^'\n]*'|[\w-]+)"""
_HEADER = re.compile(rf"\s*\[\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")


def explain(
    error: ValidationError, settings: type[BaseModel], text: str, file: str, variables: Mapping[str, str], prefix: str
) -> str:
    """The first fault of ``error`` in one line, and how many more there are.

    Args:
        error: what pydantic found.
        settings: the model that was filled.
        text: the file's text.
        file: its name.
        variables: the environment.
        prefix: of the variables that are settings.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    # A check over the whole configuration begins with the key it is about.
    said = re.match(r"(\w[\w-]*(?:\.[\w-]+)+): ", message)
    keys = [str(part) for part in first["loc"]]
    if not keys and said:
        keys, message = said.group(1).split("."), message[said.end() :]
    if first["type"] == "extra_forbidden":
        message = f"there is no such key; there are: {', '.join(_allowed(settings, keys[:-1]))}"
    more = f" ({error.error_count() - 1} more to mend after it)" if error.error_count() > 1 else ""
    return f"{_place(keys, text, file, variables, prefix)}: {'.'.join(keys) or 'settings'}: {message}{more}."


def line_of(keys: list[str], text: str) -> int | None:
    """The line of ``text`` that sets the key, or the innermost table around it; None when there is none."""
    best, line = 0, None
    for number, path in _paths(text):
        if len(path) > best and path == tuple(keys[: len(path)]):
            best, line = len(path), number
    return line


def _place(keys: list[str], text: str, file: str, variables: Mapping[str, str], prefix: str) -> str:
    """The variable that set the key, if one did, else the line of the file."""
    for length in range(len(keys), 0, -1):
        wanted = prefix + "__".join(keys[:length])
        for name in variables:
            if name.upper() == wanted.upper():
                return f"variable {name}"
    line = line_of(keys, text)
    return f"{file}, line {line}" if line else file


def _paths(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every table and key of a TOML text, as a line number and a path."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        key = None if header else _KEY.match(line)
        if header:
            table = _parts(header.group(1))
            yield number, table
        elif key:
            yield number, table + _parts(key.group(1))


def _parts(dotted: str) -> tuple[str, ...]:
    try:
        value: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return (dotted,)
    parts: list[str] = []
    while isinstance(value, dict):
        key, value = next(iter(value.items()))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        parts.append(str(key))  # pyright: ignore[reportUnknownArgumentType]
    return tuple(parts)


def _allowed(model: type[BaseModel], keys: list[str]) -> list[str]:
    """The keys of the table at ``keys``: tables of one's own naming stand between two models."""
    for key in keys:
        if key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation) or model
    return sorted(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a field, through ``| None`` and the values of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
