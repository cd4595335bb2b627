"""Shares: how much of what a job has left is set aside for each task of a plan. Imports plan."""

from __future__ import annotations

from collections import Counter

from agentflow.orchestration.plan import Plan, Task


class Shares:
    """Divides a job's budget among the tasks of a plan, by their agents' ``budget_share``.

    An agent's share is the part of the budget that all its tasks of the plan have together. Shares that sum to more
    than 1 are scaled down, so that the order in which tasks start does not matter. An agent whose share is 1 has no
    slice: its tasks draw on whatever is left (a part of 1 as it is scaled, and what others did not spend).

    Example:
        >>> shares = Shares(plan)                                       # doctest: +SKIP
        >>> job.child("search-1", share=shares.take(task))              # doctest: +SKIP
    """

    def __init__(self, plan: Plan) -> None:
        self._tasks = Counter(task.agent.name for task in plan.tasks)
        sliced = {task.agent.name: task.agent.budget_share for task in plan.tasks if task.agent.budget_share < 1.0}
        # Those that draw on what is left must find something left.
        rest = 1.0 if len(sliced) < len({task.agent.name for task in plan.tasks}) else 0.0
        self._scale = max(sum(sliced.values()) + rest, 1.0)
        self._taken = 0.0

    def take(self, task: Task) -> float | None:
        """The part (0 to 1] of what the job has left now that is this task's; None when it has no slice."""
        if task.agent.budget_share >= 1.0:
            return None
        share = self._share(task)
        # What others have taken is no longer part of what is left.
        of_the_rest = share / max(1.0 - self._taken, share)
        self._taken += share
        return min(of_the_rest, 1.0)

    def ended(self, task: Task) -> None:
        """The task has ended, and what it left has flowed back."""
        if task.agent.budget_share < 1.0:
            self._taken = max(self._taken - self._share(task), 0.0)

    def _share(self, task: Task) -> float:
        return task.agent.budget_share / self._tasks[task.agent.name] / self._scale
