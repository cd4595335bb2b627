"""Kinds of jobs for tests: real calls to the counting server, fanned out, slow, failing, deadly."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from agentflow import Reuse
from agentflow.errors import NotDone, RunError
from agentflow.jobs.job import JobState
from agentflow.jobs.kinds import JobContext, Kind


async def calls(context: JobContext) -> Any:
    """``branches`` side by side, each of ``calls`` calls one after the other, as agents make them.

    Between calls each branch waits for a random moment, so that no two runs make their calls in the same order.
    """
    asked = context.spec.input
    branches, count = int(str(asked.get("branches", 4))), int(str(asked.get("calls", 5)))
    pause = float(str(asked.get("pause", 0.0)))
    context.enter(JobState.RUNNING)
    chance = random.Random()

    async def branch(number: int) -> list[str]:
        said: list[str] = []
        async with context.chain(f"branch-{number}") as chain:
            for call in range(count):
                await asyncio.sleep(chance.random() * pause)
                reply = await chain.call(f"{context.spec.query} {number}.{call}", name="step")
                said.append(reply.output)
        return said

    said: list[list[str]] = list(await asyncio.gather(*(branch(number) for number in range(branches))))
    return {"said": [list(one) for one in said]}


async def keeping(context: JobContext) -> Any:
    """Calls one after the other; keeps what it has after each."""
    count = int(str(context.spec.input.get("calls", 5)))
    said: list[str] = []
    async with context.chain("main") as chain:
        for call in range(count):
            said.append((await chain.call(f"{context.spec.query} {call}", name="step")).output)
            context.keep({"said": list(said)})
    return {"said": list(said)}


async def alike(context: JobContext) -> Any:
    """One question, which another wording of an earlier one will do for."""
    async with context.chain("main") as chain:
        reply = await chain.call(context.spec.query, reuse=Reuse("1h", similarity=0.9))
    return {"reused": reply.reused, "said": reply.output}


async def echo(context: JobContext) -> Any:
    """Does nothing."""
    return {"echo": context.spec.query}


async def waiting(context: JobContext) -> Any:
    """Waits until a file is there."""
    context.enter(JobState.RUNNING)
    path = Path(str(context.spec.input["file"]))
    while not await asyncio.to_thread(path.exists):
        await asyncio.sleep(0.02)
    return {"run": context.run}


async def failing(context: JobContext) -> Any:
    """Fails so many of its runs."""
    if context.run <= int(str(context.spec.input.get("failures", 1))):
        raise RunError(f"run {context.run} failed on purpose")
    return {"run": context.run}


async def broken(context: JobContext) -> Any:
    """Fails in a way that nobody foresaw, with a secret in its words."""
    raise ZeroDivisionError("secret-in-an-error")


async def deadly(context: JobContext) -> Any:
    """Kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


async def planned(context: JobContext) -> Any:
    """Plans with one call, then answers every part of the plan with another."""
    async with context.chain("plan") as chain:
        await chain.call(f"{context.spec.query} plan", name="plan")
    plan = await context.planned(("one", "two"))
    async with context.chain("answer") as chain:
        return {"said": [(await chain.call(f"{context.spec.query} {part}")).output for part in plan]}


async def telling(context: JobContext) -> Any:
    """Tells something every so many seconds, ``count`` times, and when it told it."""
    context.enter(JobState.RUNNING)
    every, count = float(str(context.spec.input.get("every", 0.2))), int(str(context.spec.input.get("count", 10)))
    for _ in range(count):
        await asyncio.sleep(every)
        context.emit("note", {"note": "still here", "told_ns": time.time_ns()})
    return {"told": count}


async def mailing(context: JobContext) -> Any:
    """Sends a letter, which is a line in a file; may die while it does, or fail afterwards."""
    asked = context.spec.input
    file = Path(str(asked["file"]))

    async def send(key: str, letter: dict[str, str]) -> str:
        with file.open("a") as out:
            out.write(f"{key} {letter['to']}\n")
        if asked.get("dies") and context.run == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if asked.get("refused") and context.run == 1:
            raise NotDone("the post office is closed")
        return f"sent to {letter['to']}"

    repeatable = bool(asked.get("repeatable"))
    said = [
        await context.once("send", send, {"to": to}, usd="0.01", repeatable=repeatable) for to in ("ada", "bob", "ada")
    ]
    if asked.get("fails") and context.run == 1:
        raise RunError("failed on purpose, after the letters")
    return {"said": said}


ALL: dict[str, Kind] = {
    "calls": calls,
    "keeping": keeping,
    "alike": alike,
    "echo": echo,
    "waiting": waiting,
    "failing": failing,
    "broken": broken,
    "deadly": deadly,
    "planned": planned,
    "telling": telling,
    "mailing": mailing,
}
