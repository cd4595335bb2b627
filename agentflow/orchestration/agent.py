"""Agent: a domain sub-agent as a value. Imports nothing of agentflow; ``library`` reads agents from files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agent:
    """A sub-agent: what it is told, and what it may use.

    Args:
        name: its name, and its file's.
        description: one sentence, for planners and people.
        instructions: the system prompt of its model calls.
        cascade: the cascade that serves it; ``default`` when the configuration has none of this name.
        tools: names of the tools it may call.
        output: what it hands back.
        checks: names of the checks its replies must pass.
        budget_share: the part (0 to 1] of a job's budget that is set aside for all its tasks together; with 1 they
            draw on whatever is left.
    """

    name: str
    description: str
    instructions: str
    cascade: str = "default"
    tools: tuple[str, ...] = ()
    output: str = "text"
    checks: tuple[str, ...] = ()
    budget_share: float = 1.0
