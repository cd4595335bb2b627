"""What OpenAI's clients send as messages, in both dialects, and what it is to a chain. Imports pictures, parameters.

No web framework: workers read it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from agentflow.errors import UsageError
from agentflow.messages import Image, Message, Role, ToolCall
from agentflow.server.openai.parameters import Name, Part
from agentflow.server.openai.pictures import Pictures, picture_of

_TEXT: Final = ("text", "input_text", "output_text")
_PICTURE: Final = ("image_url", "input_image")
_Detail = Literal["auto", "low", "high"]


class FunctionCall(Part):
    """A call that a model asked for."""

    name: Name
    arguments: str = ""


class ToolCallPart(Part):
    """A tool that a model asked for, as its message is sent back."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: FunctionCall


class ImageAddress(Part):
    """Where a picture is: a ``data:`` address that holds it, or one of http(s)."""

    url: Annotated[str, Field(min_length=1)]
    detail: _Detail | None = None


class ContentPart(Part):
    """A piece of a message: text, or a picture."""

    type: str
    text: str = ""
    image_url: ImageAddress | str | None = None
    detail: _Detail | None = None

    @field_validator("detail", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        # A newer word for "as closely as can be".
        return "high" if value == "original" else value

    @property
    def address(self) -> str | None:
        """Where its picture is; None for text."""
        if self.type not in _PICTURE:
            return None
        return self.image_url.url if isinstance(self.image_url, ImageAddress) else self.image_url

    def image(self, pictures: Pictures) -> Image:
        """Its picture.

        Raises:
            UsageError: it has none, or one that cannot be read.
        """
        if not self.address:
            raise UsageError(f"A part of type '{self.type}' has no image_url. Send the picture's address or data.")
        said = self.image_url.detail if isinstance(self.image_url, ImageAddress) else self.detail
        return picture_of(self.address, said or "auto", pictures)

    def held(self, pictures: Pictures) -> ContentPart:
        """The same with its picture inside, where it was at an address."""
        held = pictures.get(self.address or "")
        if held is None:
            return self
        detail = self.image_url.detail if isinstance(self.image_url, ImageAddress) else self.detail
        return self.model_copy(update={"image_url": ImageAddress(url=held, detail=detail), "detail": detail})


Content = str | list[ContentPart] | None


class ChatMessage(Part):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    tool_calls: list[ToolCallPart] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = None

    def message(self, pictures: Pictures) -> Message:
        """The turn as a chain reads it.

        Raises:
            UsageError: it holds something other than text and pictures.
        """
        role: Role = "system" if self.role == "developer" else self.role
        calls = tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in self.tool_calls or ())
        return Message(role, text_of(self.content), calls, self.tool_call_id, images_of(self.content, pictures))


def text_of(content: Content) -> str:
    """The text of a message.

    Raises:
        UsageError: it holds something other than text and pictures.
    """
    if content is None or isinstance(content, str):
        return content or ""
    strange = next((part.type for part in content if part.type not in (*_TEXT, *_PICTURE)), None)
    if strange is not None:
        raise UsageError(
            f"A part of a message is of type '{strange[:40]}'; here text and pictures are read. Send text or image_url."
        )
    return "".join(part.text for part in content if part.type in _TEXT)


def images_of(content: Content, pictures: Pictures) -> tuple[Image, ...]:
    """The pictures of a message.

    Raises:
        UsageError: one cannot be read.
    """
    if content is None or isinstance(content, str):
        return ()
    return tuple(part.image(pictures) for part in content if part.type in _PICTURE)


def addresses_of(contents: Sequence[Content]) -> Iterator[str]:
    """Where the pictures of messages are."""
    for content in contents:
        for part in content if isinstance(content, list) else ():
            if part.address:
                yield part.address
