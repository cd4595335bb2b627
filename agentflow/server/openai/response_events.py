"""A response as the events that OpenAI's clients read, each with its number. Imports response_bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from agentflow.server.openai.response_bodies import ResponseBody, text_part


class ResponseEvents:
    """Writes the events of one response.

    Args:
        item: the name of the message that is told as it comes.
        after: events up to this number are numbered, and not written: the reader has them.
    """

    def __init__(self, item: str = "", after: int = -1) -> None:
        self.item = item
        self._after = after
        self._number = 0
        self._told = ""
        self._open = False

    def event(self, kind: str, **members: Any) -> bytes:
        """The next event; empty when the reader has it."""
        number, self._number = self._number, self._number + 1
        data = {"type": kind, "sequence_number": number, **members}
        return b"" if number <= self._after else f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()

    def standing(self, response: ResponseBody) -> bytes:
        """How a response stands that has not ended."""
        return self.event(f"response.{response.status}", response=response.model_dump(mode="json"))

    def begun(self, response: ResponseBody) -> Iterator[bytes]:
        """A response begins."""
        yield self.event("response.created", response=response.model_dump(mode="json"))
        yield self.standing(response)

    def text(self, piece: str) -> Iterator[bytes]:
        """A piece of the message's text."""
        if not self._open:
            self._open = True
            yield from self._message_begun(0, self.item)
        self._told += piece
        yield self.event("response.output_text.delta", delta=piece, logprobs=[], **_place(0, self.item))

    def ended(self, response: ResponseBody) -> Iterator[bytes]:
        """Whatever of a response has not been told, and its end."""
        for place, item in enumerate(response.output):
            yield from self._call(place, item) if item["type"] == "function_call" else self._message(place, item)
        yield self.event(f"response.{response.status}", response=response.model_dump(mode="json"))

    def _message(self, place: int, item: dict[str, Any]) -> Iterator[bytes]:
        part = item["content"][0]
        if not self._open:
            yield from self._message_begun(place, item["id"])
        if not self._told and part["text"]:
            where = _place(place, item["id"])
            yield self.event("response.output_text.delta", delta=part["text"], logprobs=part["logprobs"], **where)
        where = _place(place, item["id"])
        yield self.event("response.output_text.done", text=part["text"], logprobs=part["logprobs"], **where)
        yield self.event("response.content_part.done", part=part, **where)
        yield self.event("response.output_item.done", output_index=place, item=item)

    def _message_begun(self, place: int, id: str) -> Iterator[bytes]:
        item: dict[str, Any] = {
            "id": id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        yield self.event("response.output_item.added", output_index=place, item=item)
        yield self.event("response.content_part.added", part=text_part(""), **_place(place, id))

    def _call(self, place: int, item: dict[str, Any]) -> Iterator[bytes]:
        where = {"item_id": item["id"], "output_index": place}
        called = {"arguments": item["arguments"], "name": item["name"]}
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield self.event("response.output_item.added", output_index=place, item=begun)
        yield self.event("response.function_call_arguments.delta", delta=item["arguments"], **where)
        yield self.event("response.function_call_arguments.done", **called, **where)
        yield self.event("response.output_item.done", output_index=place, item=item)


def _place(output: int, item: str) -> dict[str, Any]:
    return {"item_id": item, "output_index": output, "content_index": 0}
