"""How much of a prompt a model has read before, in this chain: what staying saves, and leaving costs.

Providers and servers keep the beginning of a prompt for minutes, and read it again for a tenth of its price or in no
time. Imports rung and messages; ``outlook`` prices a change of models with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from agentflow.cascade.rung import ModelRung
from agentflow.messages import Message, Request, TokenUsage

# How long a prefix is kept after its last use. Anthropic and OpenAI document 5 minutes, OpenAI up to an hour at quiet
# times; a server of one's own keeps it until the room is needed.
KEPT_S: Final = 300.0
# How fast what a server says replaces what was thought of it.
_NEW: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Read:
    """The last prompt that a rung read, when, and how much of what it could have kept it said it had."""

    messages: tuple[Message, ...]
    at_s: float
    kept: float


class Warmth:
    """Which prompts the rungs of one chain have read lately.

    A prompt that begins with the messages of the one before is warm so far. How much of that a server really keeps is
    learned from the cached tokens that it reports: a rung that never reports any is soon expected to keep none.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read: dict[str, _Read] = {}

    def saw(self, rung: ModelRung, request: Request, usage: TokenUsage) -> None:
        """A rung has read a prompt, and reported ``usage``."""
        before = self._read.get(rung.name)
        kept = _at_first(rung) if before is None else before.kept
        possible = self._shared_tokens(rung, request)
        if possible:
            kept += _NEW * (min(usage.cached_input / possible, 1.0) - kept)
        self._read[rung.name] = _Read(request.messages, self._clock(), kept)

    def cached(self, rung: ModelRung, request: Request) -> int:
        """Tokens of a prompt that a rung is expected to read from its cache."""
        read = self._read.get(rung.name)
        return 0 if read is None else round(self._shared_tokens(rung, request) * read.kept)

    def cools_in(self, rung: ModelRung) -> float | None:
        """Seconds until a rung is expected to have forgotten what it read; None when it has nothing in its cache."""
        read = self._read.get(rung.name)
        if read is None or read.kept == 0.0:
            return None
        left = KEPT_S - (self._clock() - read.at_s)
        return left if left > 0 else None

    def _shared_tokens(self, rung: ModelRung, request: Request) -> int:
        read = self._read.get(rung.name)
        if read is None or self._clock() - read.at_s > KEPT_S:
            return 0
        shared = 0
        for ours, theirs in zip(request.messages, read.messages, strict=False):
            if ours != theirs:
                break
            shared += 1
        if shared == 0:
            return 0
        return rung.counter.prompt(replace(request, messages=request.messages[:shared]))


def _at_first(rung: ModelRung) -> float:
    """Before a rung has said anything: one that sells cached tokens for less is taken to keep them."""
    rates = rung.price.rates
    return 1.0 if rates.cache_read is not None and rates.cache_read < (rates.input or 0) else 0.0
