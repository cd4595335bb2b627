"""What a rung takes and gives, and what a call needs of it: a call goes only to rungs that can serve it.

May import budget (its copy of litellm's map), tokens, image_tokens, messages. ``climb`` asks before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, Protocol, get_args

from agentflow.errors import AgentflowError, ContextOverflow, NotServed
from agentflow.image_tokens import sees_images
from agentflow.messages import Request
from agentflow.tokens import TokenCounter

Capability = Literal["text", "vision", "tools", "json", "logprobs"]
EVERYTHING: Final[frozenset[Capability]] = frozenset(get_args(Capability))
# A count with another family's table may be a quarter too high: what might still fit is left to the server to refuse.
_ESTIMATE_OVER: Final = 1.25
_WORDS: Final[dict[Capability, str]] = {
    "text": "text", "vision": "images", "tools": "tools", "json": "replies in a schema",
    "logprobs": "log-probabilities",
}  # fmt: skip
_CONTEXT: Final = "the prompt is too long"


class Serving(Protocol):
    """What is asked of a rung: the fields of a ModelRung."""

    @property
    def serves(self) -> frozenset[Capability]: ...  # noqa: D102
    @property
    def context(self) -> int | None: ...  # noqa: D102
    @property
    def counter(self) -> TokenCounter: ...  # noqa: D102
    @property
    def default_output(self) -> int: ...  # noqa: D102


def needed(request: Request) -> frozenset[Capability]:
    """What a rung must serve for this request."""
    needs: list[Capability] = []
    if any(message.content for message in request.messages):
        needs.append("text")
    if request.images:
        needs.append("vision")
    if request.tools:
        needs.append("tools")
    if request.schema is not None:
        needs.append("json")
    if request.logprobs:
        needs.append("logprobs")
    return frozenset(needs)


def known_capabilities(backend: str, model: str) -> frozenset[Capability]:
    """What a model is taken to serve when nobody says.

    Text, tools, JSON and log-probabilities are assumed: a server that lacks one says so or leaves it out. Images are
    not, for a model that does not see them answers all the same; they need a family that is known to take them.

    Args:
        backend: its kind in the configuration; a model file in this process is loaded without its image part.
        model: the backend's name of it.
    """
    serves = set(EVERYTHING)
    row = _row(backend, model)
    if backend == "llamacpp" or not (row.get("supports_vision") is True or sees_images(model)):
        serves.discard("vision")
    if row.get("supports_function_calling") is False:
        serves.discard("tools")
    return frozenset(serves)


def known_context(backend: str, model: str) -> int | None:
    """Tokens of a remote model's context, as litellm's map has it; None when it does not say."""
    context = _row(backend, model).get("max_input_tokens")
    return context if isinstance(context, int) and context > 0 else None


def lack(rung: Serving, request: Request, least: int) -> str:
    """Why a rung cannot serve a request; empty when it can.

    Args:
        rung: the model.
        request: the question.
        least: tokens below which a reply is not worth asking for.
    """
    missing = needed(request) - rung.serves
    if missing:
        named = ", ".join(word for capability, word in _WORDS.items() if capability in missing)
        return f"it does not serve {named}"
    if rung.context is None:
        return ""
    reply = min(least, request.max_output_tokens or rung.default_output)
    if rung.counter.at_most(request) + reply <= rung.context:
        return ""
    prompt = rung.counter.prompt(request)
    surely = prompt if rung.counter.exact else int(prompt / _ESTIMATE_OVER)
    if surely + reply <= rung.context:
        return ""
    return f"{_CONTEXT}: {prompt:,} tokens and {reply:,} for a reply, in a context of {rung.context:,}"


def not_served(cascade: str, reasons: Iterable[tuple[str, str]]) -> AgentflowError:
    """The error of a call that no rung can serve.

    Args:
        cascade: its name.
        reasons: each rung's name, and why it cannot.

    Returns:
        ContextOverflow when the prompt is too long for every rung, else NotServed.
    """
    told = list(reasons)
    listed = "; ".join(f"{rung}: {reason}" for rung, reason in told)
    if told and all(reason.startswith(_CONTEXT) for _, reason in told):
        return ContextOverflow(
            f"The prompt does not fit any rung of cascade '{cascade}' ({listed}). Nothing was sent. Shorten it, or add "
            "a model with a longer context."
        )
    return NotServed(
        f"No rung of cascade '{cascade}' can serve the call ({listed}). Nothing was sent. Add a model that can, or say "
        "what a model can in its 'serves'."
    )


def _row(backend: str, model: str) -> dict[str, object]:
    if backend != "litellm":
        return {}
    from agentflow.budget.price_layers.litellm import row_of

    return dict(row_of(model))
