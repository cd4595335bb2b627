"""Calls that a small model failed and a larger one answered, with their prompts: what fine-tuning needs.

Kept only where the configuration says so, for it is what users wrote. One file of JSON lines a day, which other
processes append to as well. May import the cascade's values. ``agentflow cascade export`` reads it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from agentflow.budget.currency import MICRO
from agentflow.budget.ledger import Labels
from agentflow.budget.money import decimal_text
from agentflow.cascade.reply import AnyReply, Attempt
from agentflow.messages import Message, Request, ToolCall

_LOG = logging.getLogger(__name__)
_SUFFIX: Final = ".jsonl"


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a small model can learn from one call: who failed it and how, and who answered."""

    failed: tuple[Attempt, ...]
    passed: Attempt

    @classmethod
    def of(cls, trail: Sequence[Attempt], reply: AnyReply) -> Lesson | None:
        """The lesson of a call, if a model failed the checks and a later one passed them, just now.

        Args:
            trail: its attempts, each as it was judged; a reply's own trail calls the served one accepted either way.
            reply: what it was given.
        """
        attempts = [attempt for attempt in trail if attempt.kind == "model"]
        passed = next((a for a in attempts if a.outcome == "accepted" and a.rung == reply.rung), None)
        if passed is None or passed.replayed or reply.completion is None:
            return None
        before = attempts[: attempts.index(passed)]
        failed = tuple(a for a in before if a.outcome in ("rejected", "kept") and a.rung != passed.rung)
        return cls(failed, passed) if failed else None


class EscalationLog:
    """The folder of these calls.

    Args:
        folder: made when the first call is kept.
        days: files older than these are deleted.
        now: seconds since 1970.
    """

    def __init__(self, folder: Path, days: int, now: Callable[[], float] = time.time) -> None:
        self.folder = folder.absolute()
        self._days = days
        self._now = now

    async def note(self, call: str, labels: Labels, request: Request, reply: AnyReply, lesson: Lesson) -> None:
        """Keep a call. What cannot be written is logged, and fails no call."""
        at = datetime.fromtimestamp(self._now(), UTC)
        line = {
            "call": call, "at": at.isoformat(timespec="seconds"), "cascade": labels.cascade, "job": labels.job,
            "agent": labels.agent, "tenant": labels.tenant, "name": labels.call,
            "failed": [_told(attempt) for attempt in lesson.failed], "passed": _told(lesson.passed),
            "messages": [*map(message_json, request.messages), _reply_json(reply)],
            **({"tools": [_tool(request, n) for n in range(len(request.tools))]} if request.tools else {}),
        }  # fmt: skip
        try:
            await asyncio.to_thread(self._append, at, json.dumps(line, ensure_ascii=False, default=str) + "\n")
        except OSError as error:
            _LOG.warning("A call could not be kept in %s: %s.", self.folder, error)

    def read(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[Mapping[str, Any]]:
        """What is kept, in the order of the days; a line that was cut off by a crash is left out."""
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")) if self.folder.is_dir() else ():
            with path.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    found = _parsed(line)
                    if found is not None and _within(str(found["at"]), since, until):
                        yield found

    def _append(self, at: datetime, line: str) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{at:%Y-%m-%d}{_SUFFIX}"
        new = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # One write: lines of several processes do not mix.
            os.write(handle, line.encode("utf-8", "backslashreplace"))
        finally:
            os.close(handle)
        if new:
            self._forget(at)

    def _forget(self, at: datetime) -> None:
        oldest = f"{at - timedelta(days=self._days):%Y-%m-%d}"
        for path in self.folder.glob(f"*{_SUFFIX}"):
            if path.stem < oldest:
                path.unlink(missing_ok=True)


def message_json(message: Message) -> dict[str, Any]:
    """A message in the form in which chat models are tuned; its images as data addresses."""
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        told["content"] = [{"type": "text", "text": message.content}] + [
            {
                "type": "image_url",
                "image_url": {"url": f"data:{i.media_type};base64,{base64.b64encode(i.data).decode()}"},
            }
            for i in message.images
        ]
    if message.tool_calls:
        told["tool_calls"] = _calls(message.tool_calls)
    if message.tool_call_id is not None:
        told["tool_call_id"] = message.tool_call_id
    return told


def _reply_json(reply: AnyReply) -> dict[str, Any]:
    told: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.tool_calls:
        told["tool_calls"] = _calls(reply.tool_calls)
    return told


def _calls(calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    return [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls]


def _tool(request: Request, place: int) -> dict[str, Any]:
    tool = request.tools[place]
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _told(attempt: Attempt) -> dict[str, Any]:
    spend = attempt.spend
    return {
        "rung": attempt.rung, "outcome": attempt.outcome, "confidence": attempt.confidence, "reason": attempt.reason,
        "tokens": spend.tokens, "usd": decimal_text(spend.nano_usd), "joules": spend.microjoules / MICRO,
    }  # fmt: skip


def _parsed(line: str) -> Mapping[str, Any] | None:
    try:
        found: Any = json.loads(line)
    except ValueError:
        return None
    return (
        cast("Mapping[str, Any]", found) if isinstance(found, dict) and "at" in found and "messages" in found else None
    )


def _within(at: str, since: datetime | None, until: datetime | None) -> bool:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return False
    return (since is None or moment >= since) and (until is None or moment < until)
