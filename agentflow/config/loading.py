"""agentflow.toml read, and what is wrong with it said by file, line and key. Imports settings and faults."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import SettingsError

from agentflow.config.faults import explain, line_of
from agentflow.config.settings import PREFIX, Settings
from agentflow.errors import ConfigError

CONFIG_FILE: Final = "agentflow.toml"


def load_settings(path: Path | None = None) -> Settings:
    """Read the configuration.

    Args:
        path: the file; when None, AGENTFLOW_CONFIG, else agentflow.toml in the working folder if there is one.

    Raises:
        ConfigError: the file is missing (when it was named), is not TOML, or says something that cannot be.
            The message names the file, the line and the key.
    """
    named = path or (Path(os.environ["AGENTFLOW_CONFIG"]) if os.environ.get("AGENTFLOW_CONFIG") else None)
    file = named or Path(CONFIG_FILE)
    text = _text(file) if named is not None or file.is_file() else ""
    data = _parsed(text, file)
    _refuse_unknown_variables()
    try:
        return Settings(**data)
    except ValidationError as error:
        raise ConfigError(explain(error, Settings, text, str(file), os.environ, PREFIX)) from error
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"{PREFIX}{field.group(1).upper()}" if field else f"of {PREFIX}*"
        raise ConfigError(f"variable {name}: not valid JSON. Write tables and lists as JSON.") from error


def example_config() -> str:
    """An agentflow.toml with models, a cascade and a budget, to start from."""
    return EXAMPLE


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Check the path.") from error


def _parsed(text: str, file: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        line = at.group(1) if at else str(len(text.splitlines()))
        what = str(error)[: at.start()] if at else str(error)
        column = f" at column {at.group(2)}" if at else ""
        raise ConfigError(f"{file}, line {line}: not valid TOML: {what}{column}. Mend that line.") from error
    except RecursionError as error:
        raise ConfigError(f"{file} nests its values too deep to be read. Write tables instead.") from error
    for key in data:
        # A settings class takes arguments of its own; only tables may reach it.
        if key not in Settings.model_fields:
            line = line_of([key], text)
            raise ConfigError(f"{file}, line {line}: {key}: there is no such key; {_tables()}.")
    return data


def _refuse_unknown_variables() -> None:
    """A misspelt table in a variable would be passed over in silence."""
    for name in os.environ:
        table, nested, _ = name.upper().removeprefix(PREFIX).partition("__")
        if name.upper().startswith(PREFIX) and nested and table.lower() not in Settings.model_fields:
            raise ConfigError(f"variable {name}: there is no table '{table.lower()}'; {_tables()}.")


def _tables() -> str:
    return f"there are: {', '.join(sorted(Settings.model_fields))}"


EXAMPLE = """\
# agentflow.toml: every table may be left out. With no models, jobs run on code alone, at 0 dollars.

[models.small]                       # any OpenAI-compatible server: llama-server, vLLM, ...
backend = "openai"
model = "qwen2.5-7b-instruct"
base_url = "http://127.0.0.1:8080/v1"
context = 8192
price = { input = 0, output = 0 }    # your own server; unknown is never free, so say so
energy = { kind = "cpu" }

[models.large]
backend = "litellm"
model = "openai/gpt-4o-mini"
api_key_env = "OPENAI_API_KEY"       # the name of the variable, never the key

[cascades.default]
rungs = ["code", "small", "large"]   # cheapest first
accept = 0.7

[budget]                             # limits of every job
usd = 0.25
joules = 50000
seconds = 300
"""
