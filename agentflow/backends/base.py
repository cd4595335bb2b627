"""What every backend does: one method that turns a request into a completion. Imports messages only.

A backend speaks to a model and knows nothing of budgets, cascades or spans. The test double is a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from agentflow.messages import Completion, Delta, Request

Dialect = Literal["openai", "vllm", "llamacpp"]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a model server says of itself. None is not known.

    Args:
        dialect: whose additions to the OpenAI API it understands.
        models: the names that it offers.
        context: tokens that prompt and reply may take together, in one of its slots.
        slots: calls that it serves side by side.
        modalities: what it can read, as ``text``, ``vision``, ``audio``; empty when it does not say.
        tools: whether the model's chat template knows tools.
        running: calls being served now.
        waiting: calls in its queue now.
        cached_share: part of all prompt tokens so far that came from its prefix cache, 0 to 1.
    """

    dialect: Dialect
    models: tuple[str, ...] = ()
    context: int | None = None
    slots: int | None = None
    modalities: tuple[str, ...] = ()
    tools: bool | None = None
    running: float | None = None
    waiting: float | None = None
    cached_share: float | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend answers, without asking a model anything.

    ``round_trip_s`` is the wall clock of the probe; ``models`` the names the server offers, when it says;
    ``server`` is what else it says of itself.
    """

    reachable: bool
    detail: str
    round_trip_s: float | None = None
    models: tuple[str, ...] = ()
    server: ServerFacts | None = None


class Backend(Protocol):
    """What speaks to a model.

    ``provider`` is the OpenTelemetry provider name (``openai``, ``vllm``, ``llama_cpp``); ``in_process`` tells
    whether the model runs inside this process.
    """

    provider: str
    in_process: bool

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask once, and wait for the whole reply.

        Args:
            model: the backend's own name of it.
            request: the question.
            tell: told of each piece of the reply's text as it comes; together they are the reply's text. A backend
                that cannot stream tells it in one piece. Cancelling the wait ends the reply.

        Raises:
            BackendError: any failure, as the subclass that says whether it may have cost something.
        """
        ...

    async def probe(self) -> Probe:
        """Whether the model can be reached; never raises."""
        ...

    async def aclose(self) -> None:
        """Let go of connections, threads and memory. Closing twice changes nothing."""
        ...
