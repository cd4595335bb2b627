"""Replies given again: what a call opts in with, by what a reply is known, and who asks while others wait.

A reply is known by all that it depends on: the whole request with its images, schema and tools, the rungs that could
serve it, what judged it, and whose call it was. May import reply_file and the cascade's values. Next:
``reusing`` (a call that looks here first).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agentflow.cascade.checks import Check
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply_file import KeptReply, Likeness, ReplyFile, ReplyFileStatistics
from agentflow.cascade.rung import CodeRung, Rung
from agentflow.errors import UsageError
from agentflow.messages import Completion, Request

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
# A reply that was cut or filtered is not what the model had to say.
_WHOLE: Final = ("stop", "tool_calls")


@dataclass(frozen=True, slots=True)
class Reuse:
    """A call may be answered by a reply that an earlier one was given.

    Args:
        within: how old the reply may be: ``"90s"``, ``"15m"``, ``"1h"``, ``"7d"``, ``"2w"``, or seconds.
        similarity: the least cosine, above 0 to 1, at which another wording of the question counts as the same; None
            takes the very same question only. It needs an embedder. Numbers and names must agree all the same.

    Raises:
        UsageError: that is no age, or no similarity.

    Example:
        >>> Reuse("1h").seconds
        3600.0
    """

    within: str | float
    similarity: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 0.0 < self.seconds < 3.2e9:
            raise UsageError(f"A reply cannot be reused within {self.within!r}. Give an age above 0, such as '1h'.")
        if self.similarity is not None and not 0.0 < self.similarity <= 1.0:
            raise UsageError(f"A similarity of {self.similarity} cannot be. Give a cosine above 0 to 1, such as 0.95.")

    @property
    def seconds(self) -> float:
        """The age in seconds."""
        if not isinstance(self.within, str):
            return float(self.within)
        found = _AGE.fullmatch(self.within.strip())
        if found is None:
            raise UsageError(f"'{self.within[:40]}' is not an age. Write '90s', '15m', '1h', '7d' or '2w'.")
        return float(found[1]) * _UNITS[found[2]]


class ReplyCache:
    """Accepted replies, by what they answered.

    Args:
        file: where they are kept.
        share_tenants: whether a tenant may be given a reply that another one paid for.
        now: seconds since 1970.
    """

    def __init__(self, file: ReplyFile, *, share_tenants: bool = False, now: Callable[[], float] = time.time) -> None:
        self.file = file
        self.share_tenants = share_tenants
        self.now = now
        self._asking: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def alone(self, key: str, patience_s: float | None = None) -> AsyncGenerator[None]:
        """Let one call of this key through at a time: the others find its reply when it is their turn.

        Args:
            key: of the calls.
            patience_s: whoever has waited so long goes through beside the others; None waits without end.
        """
        lock = self._asking.get(key)
        if lock is None:
            lock = self._asking[key] = asyncio.Lock()
        try:
            async with asyncio.timeout(patience_s):
                await lock.acquire()
            mine = True
        except TimeoutError:
            mine = False
        try:
            yield
        finally:
            if mine:
                lock.release()

    async def statistics(self) -> ReplyFileStatistics:
        """A snapshot: how many replies are kept, and their bytes."""
        return await self.file.statistics()

    async def aclose(self) -> None:
        """Close the file."""
        await self.file.aclose()


@dataclass(frozen=True, slots=True)
class Reusing:
    """One call's reuse: the cache, how old a reply may be, whose call it is, and what finds other wordings."""

    cache: ReplyCache
    reuse: Reuse
    tenant: str = ""
    embedding: CodeRung | None = None

    def scope(self, rungs: Sequence[Rung], policy: Policy, checks: Sequence[Check]) -> str:
        """A name for everything that decides a reply beside the request.

        Prices, time limits, regions and retries are not in it: they change what a reply costs, not what it says.
        """
        served = [["code", rung.name] if isinstance(rung, CodeRung) else [rung.name, rung.identity] for rung in rungs]
        parts = [
            1, "" if self.cache.share_tenants else f"tenant {self.tenant}", served, policy.accept,
            type(policy.routing).__name__, str(getattr(policy.routing, "rung", "")), [_name(check) for check in checks],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    async def find(self, key: str) -> KeptReply | None:
        """The reply under this key, if it is young enough."""
        return await self.cache.file.find(key, self.reuse.seconds)

    async def keep(self, key: str, rung: str, completion: Completion, likeness: Likeness | None = None) -> None:
        """Keep an accepted reply; one that was cut short is not kept."""
        if completion.finish_reason in _WHOLE:
            kept = KeptReply(key, rung, completion, self.cache.now())
            await self.cache.file.keep(kept, self.reuse.seconds, likeness)


def key_of(scope: str, request: Request) -> str:
    """By what a reply to this request is known, in this scope."""
    return hashlib.sha256(f"{scope}|{request.fingerprint()}".encode()).hexdigest()


def age_text(seconds: float) -> str:
    """How long ago, for people."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"


def _name(check: Check) -> str:
    kind = check if hasattr(check, "__qualname__") else type(check)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
