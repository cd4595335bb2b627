"""For tests of what is built on agentflow: a scripted model, a flow that asks it, runs on a cassette. Imports flow.

Nothing here needs a test framework, a network, a model or a file, but for the cassette's own.

    >>> from agentflow import testing
    >>> model = testing.ScriptedModel(["Paris"])
    >>> async def ask() -> str:
    ...     async with testing.flow(model) as flow, flow.chain("capitals") as chain:
    ...         return (await chain.call("What is the capital of France?")).output
    >>> import asyncio
    >>> asyncio.run(ask())
    'Paris'
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from agentflow.backends.base import Probe
from agentflow.config import CascadeSettings, LedgerSettings, ModelSettings, PriceSettings, Settings
from agentflow.config.settings import PREFIX
from agentflow.errors import BackendTimeout, UsageError
from agentflow.flow import Flow
from agentflow.messages import Completion, Delta, FinishReason, Request, Timings, TokenUsage, ToolCall
from agentflow.tokens import TokenCounter

__all__ = ["ScriptedModel", "ScriptedReply", "cassette", "flow"]

Content = str | BaseModel | ToolCall | Sequence[ToolCall] | BaseException


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """One reply of a scripted model, with the facts that go with it.

    Args:
        content: its text, an object that is sent as JSON, the tools it calls, or an error that is raised.
        usage: its tokens; counted when None.
        logprobs: natural-log probabilities of its tokens; given when they are asked for.
        after: it is not given before this is set, so that a test can say what happens meanwhile.
        finish_reason: why it ended; what its content says when None.
    """

    content: Content
    usage: TokenUsage | None = None
    logprobs: tuple[float, ...] | None = None
    after: asyncio.Event | None = None
    finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """Its text: empty when it calls tools."""
        if isinstance(self.content, BaseModel):
            return self.content.model_dump_json()
        return self.content if isinstance(self.content, str) else ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools it calls."""
        if isinstance(self.content, ToolCall):
            return (self.content,)
        return () if isinstance(self.content, (str, BaseModel, BaseException)) else tuple(self.content)


class ScriptedModel:
    """A backend that gives the replies it was told to give, in order, and keeps what it was asked.

    Args:
        replies: what it says, one after another: anything that a ScriptedReply's content can be, or ScriptedReplies.
            A function gives the reply to a request instead.
        name: of its rung, in replies and reports.

    Raises:
        UsageError: of ``complete``, when it is asked more often than it has replies.

    Example:
        >>> model = ScriptedModel(["first", ToolCall("1", "search", '{"q": "tides"}'), TimeoutError()])
        >>> model.left
        3
    """

    provider = "scripted"
    in_process = False

    def __init__(
        self,
        replies: Sequence[Content | ScriptedReply] | Callable[[Request], Content | ScriptedReply],
        *,
        name: str = "scripted",
    ) -> None:
        if isinstance(replies, str):
            raise UsageError(f"ScriptedModel takes a list of replies: ScriptedModel([{replies[:20]!r}]).")
        self.name = name
        self.requests: list[Request] = []
        self.closed = False
        self._answer = replies if callable(replies) else None
        self._replies = [] if callable(replies) else [_reply(content) for content in replies]
        self._counter = TokenCounter.for_model(name)

    @property
    def left(self) -> int:
        """How many replies were not asked for yet."""
        return len(self._replies)

    @property
    def has_logprobs(self) -> bool:
        """Whether any reply that is left has token probabilities."""
        return any(reply.logprobs is not None for reply in self._replies)

    def assert_complete(self) -> None:
        """Fail when replies are left: what was tested stopped early.

        Raises:
            AssertionError: they are.
        """
        asked = len(self.requests)
        assert not self._replies, f"'{self.name}' was asked {asked} times, and has {self.left} replies left."

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Give the next reply.

        Raises:
            UsageError: there is none left.
            BackendTimeout: what it waits for was not set within ``request.timeout_s``.
            BaseException: it is an error.
        """
        started = time.monotonic()
        self.requests.append(request)
        reply = self._next(request)
        await asyncio.sleep(0)
        if reply.after is not None:
            await self._wait(reply.after, request.timeout_s)
        if isinstance(reply.content, BaseException):
            raise reply.content
        if tell is not None and reply.text:
            for piece in _pieces(reply.text):
                tell(Delta(piece))
        return self._completion(reply, request, time.monotonic() - started)

    async def probe(self) -> Probe:
        """It can be reached."""
        return Probe(True, f"{self.left} scripted replies are left", models=(self.name,))

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True

    async def _wait(self, event: asyncio.Event, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError as error:
            raise BackendTimeout(f"'{self.name}' gave no whole reply within {timeout_s} s.") from error

    def _next(self, request: Request) -> ScriptedReply:
        if self._answer is not None:
            return _reply(self._answer(request))
        if not self._replies:
            raise UsageError(
                f"'{self.name}' was asked {len(self.requests)} times and has {len(self.requests) - 1} replies. "
                "Give ScriptedModel another, or find out why it was asked again: model.requests has what was asked."
            )
        return self._replies.pop(0)

    def _completion(self, reply: ScriptedReply, request: Request, seconds: float) -> Completion:
        written = reply.text + "".join(call.name + call.arguments for call in reply.tool_calls)
        return Completion(
            text=reply.text,
            model=self.name,
            usage=reply.usage or replace(self._counter.usage(request, written), source="provider"),
            timings=Timings(seconds, seconds),
            finish_reason=reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop"),
            tool_calls=reply.tool_calls,
            logprobs=reply.logprobs if request.logprobs else None,
        )


def flow(*models: ScriptedModel, price: tuple[float, float] = (0, 0)) -> Flow:
    """A Flow whose cascade is these models, in this order: offline, without files, whatever the environment says.

    Args:
        models: the rungs of its cascade.
        price: dollars of a million prompt tokens and of a million reply tokens.

    Raises:
        UsageError: there are no models, or two have one name.
    """
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise UsageError("A test's flow needs models of different names: ScriptedModel([...], name='small').")
    prompt, reply = (Decimal(str(rate)) for rate in price)
    tables = {
        model.name: ModelSettings(
            backend="openai",
            base_url="http://scripted.invalid/v1",
            price=PriceSettings(input=prompt, output=reply),
            logprobs=model.has_logprobs,
        )
        for model in models
    }
    settings = _Hermetic(
        models=tables,
        cascades={"default": CascadeSettings(rungs=tuple(names))},
        ledger=LedgerSettings(kind="memory"),
    )
    return Flow(settings, backends={model.name: model for model in models})


@contextlib.contextmanager
def cassette(path: str | Path, mode: Literal["record", "replay", "auto"] | None = None) -> Generator[Path]:
    """Within the block, flows that are made ask through this cassette, as ``[cassette]`` in the configuration would.

    Args:
        path: the file. Commit it beside the test.
        mode: as in the configuration. When None, AGENTFLOW_CASSETTE__MODE, so that continuous integration can ask
            for ``replay``; else ``auto``, which replays what the file has and records what it does not.

    Yields:
        The file's path.

    Example:
        >>> with cassette("tests/cassettes/triage.jsonl"):     # doctest: +SKIP
        ...     async with Flow.from_config() as flow:
        ...         ...
    """
    wanted = {f"{PREFIX}CASSETTE__PATH": str(path)} | ({} if mode is None else {f"{PREFIX}CASSETTE__MODE": mode})
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield Path(path)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Hermetic(Settings):
    """Settings that no variable changes: a test means what it says."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was given, and nothing else."""
        return (init_settings,)


def _reply(content: Content | ScriptedReply) -> ScriptedReply:
    return content if isinstance(content, ScriptedReply) else ScriptedReply(content)


def _pieces(text: str) -> list[str]:
    """Text word by word, each with the space after it."""
    words = text.split(" ")
    return [*(word + " " for word in words[:-1]), words[-1]] if words[-1] else [word + " " for word in words[:-1]]
