"""The library of sub-agents: one Markdown file each, with front matter. A user adds an agent by adding a file.

The files ship inside the wheel; an editable install finds the same ones in the checkout. Imports agent, errors.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentflow.errors import ConfigError
from agentflow.orchestration.agent import Agent


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str = Field(min_length=1)
    cascade: str = "default"
    tools: tuple[str, ...] = ()
    output: str = "text"
    checks: tuple[str, ...] = ()
    budget_share: float = Field(default=1.0, gt=0, le=1)


def agents_folder() -> Path:
    """Where the shipped agents lie: inside the installed package, or beside it in a checkout.

    Raises:
        ConfigError: neither exists; the installation is not whole.
    """
    package = Path(str(resources.files("agentflow")))
    for folder in (package / "agents", package.parent / "agents"):
        if (folder / "planner.md").is_file():
            return folder
    raise ConfigError("The shipped agents/*.md are missing. Install agentflow again.")


@functools.cache
def shipped_agents() -> Mapping[str, Agent]:
    """Every agent that ships, by name."""
    return load_agents(agents_folder())


def load_agents(folder: Path) -> Mapping[str, Agent]:
    """Every agent of a folder, by name.

    Raises:
        ConfigError: a file has no front matter, or says something that cannot be; the message names the file.
    """
    agents = [_load(path) for path in sorted(folder.glob("*.md"))]
    return {agent.name: agent for agent in agents}


def _load(path: Path) -> Agent:
    head, separator, body = path.read_text("utf-8").removeprefix("---\n").partition("\n---\n")
    if not separator:
        raise ConfigError(f"{path} has no front matter between two lines of ---. See agents/planner.md for the form.")
    try:
        data: Any = yaml.safe_load(head)
        matter = _FrontMatter.model_validate(data)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: the front matter is not YAML: {str(error).splitlines()[0]}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc'])) or 'front matter'}: {first['msg']}.") from error
    if matter.name != path.stem:
        raise ConfigError(f"{path}: the agent is called '{matter.name}'; file and name must be the same.")
    return Agent(
        matter.name, matter.description, body.strip(), matter.cascade, matter.tools, matter.output, matter.checks,
        matter.budget_share,
    )  # fmt: skip
