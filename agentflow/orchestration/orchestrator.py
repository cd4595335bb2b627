"""Orchestrator: runs a plan's tasks as soon as what they need is there, each in a chain of its own.

Independent tasks run side by side in one TaskGroup; cancelling it cancels them all, and every hold is given back or
settled on the way. Imports plan, runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from agentflow.budget.meter import Meter
from agentflow.chain import CallRecord, Chain
from agentflow.errors import AgentflowError
from agentflow.orchestration.plan import Outcome, Plan, Task
from agentflow.orchestration.shares import Shares
from agentflow.runtime import Runtime
from agentflow.telemetry import tracing

TaskState = Literal["started", "ended", "failed"]
OnTask = Callable[[Task, TaskState, Meter], None]


class Orchestrator:
    """Runs plans for one job.

    Args:
        runtime: opens the chains.
        job: the job's node in the budget tree.
        on_call: told of every attempt of every chain.
        on_task: told when a task starts and ends.
    """

    def __init__(
        self,
        runtime: Runtime,
        job: Meter,
        on_call: Callable[[CallRecord], None],
        on_task: OnTask,
    ) -> None:
        self._runtime = runtime
        self._job = job
        self._on_call = on_call
        self._on_task = on_task

    async def run(self, plan: Plan) -> Mapping[str, Outcome]:
        """Run every task, and return how each ended, by name.

        A task that fails does not stop the others; those that need it get no result of it under its name.
        """
        outcomes: dict[str, Outcome] = {}
        ended = {task.name: asyncio.Event() for task in plan.tasks}
        shares = Shares(plan)
        self._job.expect(sum(task.agent.budget_share for task in plan.tasks))

        async def follow(task: Task) -> None:
            for need in task.needs:
                await ended[need].wait()
            inputs = {need: outcomes[need].value for need in task.needs if outcomes[need].error is None}
            outcomes[task.name] = await self._one(task, inputs, shares)
            self._job.did(task.agent.budget_share)
            ended[task.name].set()

        async with asyncio.TaskGroup() as group:
            for task in plan.tasks:
                group.create_task(follow(task), name=task.name)
        return outcomes

    async def _one(self, task: Task, inputs: Mapping[str, Any], shares: Shares) -> Outcome:
        try:
            chain = self._open(task, shares)
        except AgentflowError as error:
            return Outcome(error=error)
        self._on_task(task, "started", chain.meter)
        state: TaskState = "failed"
        try:
            with tracing.agent_span(task.agent.name, self._job.name):
                async with chain:
                    outcome = Outcome(value=await task.work(chain, inputs))
            state = "ended"
            return outcome
        except AgentflowError as error:
            return Outcome(error=error)
        finally:
            chain.close()
            shares.ended(task)
            self._on_task(task, state, chain.meter)

    def _open(self, task: Task, shares: Shares) -> Chain:
        share = shares.take(task)
        left = self._job.room().seconds
        return self._runtime.chain(
            task.name,
            parent=self._job,
            cascade=task.agent.cascade,
            share=share,
            # Tasks run side by side, so of the wall clock each may take its agent's whole share.
            seconds=None if share is None or not left else left * task.agent.budget_share,
            observe=self._on_call,
            agent=task.agent.name,
            final=task.last,
        )
