"""Plan: a job as a graph of tasks without cycles. Imports agent, chain, errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.chain import Chain
from agentflow.errors import AgentflowError, UsageError
from agentflow.orchestration.agent import Agent

Work = Callable[[Chain, Mapping[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of a job for one sub-agent.

    ``work`` gets the task's own chain and the results of the tasks it ``needs``, by their names; nothing else of
    the job reaches it. ``last`` marks the one that delivers: its calls may use what budgets keep for a landing.
    """

    name: str
    agent: Agent
    work: Work
    needs: tuple[str, ...] = ()
    last: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: with a value, or with the error that ended it."""

    value: Any = None
    error: AgentflowError | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Tasks, each after those it needs.

    Raises:
        UsageError: two tasks have one name, a need does not exist, or needs go round in a circle.
    """

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        """Check that the plan can be run to its end."""
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise UsageError(f"A plan has two tasks of one name: {', '.join(names)}.")
        done: set[str] = set()
        left = list(self.tasks)
        while left:
            ready = [task for task in left if done.issuperset(task.needs)]
            if not ready:
                stuck = ", ".join(task.name for task in left)
                raise UsageError(f"A plan cannot be run: tasks {stuck} need each other, or one that is not there.")
            done.update(task.name for task in ready)
            left = [task for task in left if task.name not in done]
