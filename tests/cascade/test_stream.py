from __future__ import annotations

import pytest

from agentflow.errors import BackendError, CallFailed, UsageError
from tests.cascade.test_cascade import _backends_are_closed, chain, code, rung
from tests.servers.openai_server import ScriptedServer

__all__ = ["_backends_are_closed"]
LONG = "one two three four five " * 10

USAGE = {"prompt_tokens": 10, "completion_tokens": 5}


async def test_the_text_comes_in_pieces_and_then_the_reply(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"text": LONG, "usage": USAGE}]})
    it = chain(rung(scripted_server, "small"))
    async with it.stream("Count.") as stream:
        pieces = [text async for text in stream]
        assert len(pieces) > 1
        assert "".join(pieces) == stream.reply.text == LONG
    assert it.spend.tokens == 15


async def test_a_reply_that_may_be_replaced_comes_in_one_piece(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        {
            "small": [{"text": "a first try", "logprobs": [-3.0, -3.0], "usage": USAGE}],
            "large": [{"text": "a better one", "usage": USAGE}],
        }
    )
    it = chain(code("no", 0.2), rung(scripted_server, "small", logprobs=True), rung(scripted_server, "large"))
    async with it.stream("Count.") as stream:
        text = "".join([piece async for piece in stream])
    assert text == stream.reply.text


async def test_code_that_is_sure_is_told_in_one_piece() -> None:
    it = chain(code("42", 1.0))
    async with it.stream("Count.") as stream:
        assert [piece async for piece in stream] == ["42"]


async def test_a_model_that_fails_before_its_first_word_is_followed_by_another(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"status": 500}], "large": [{"text": "here", "usage": USAGE}]})
    it = chain(rung(scripted_server, "small"), rung(scripted_server, "large"))
    async with it.stream("Count.") as stream:
        assert "".join([piece async for piece in stream]) == "here"


async def test_a_model_that_fails_in_the_middle_is_not_followed(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"text": LONG, "drop_after": 1}], "large": [{"text": "here"}]})
    it = chain(rung(scripted_server, "small"), rung(scripted_server, "large"))
    seen: list[str] = []
    with pytest.raises(BackendError):
        async with it.stream("Count.") as stream:
            async for piece in stream:
                seen.append(piece)
    assert "here" not in "".join(seen)
    assert it.spend.in_doubt == 1


async def test_leaving_early_ends_the_call_and_charges_it(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"text": LONG, "usage": USAGE, "gate_chunk": "never", "gate_from": 1}]})
    it = chain(rung(scripted_server, "small"))
    async with it.stream("Count.") as stream:
        async for _ in stream:
            with pytest.raises(UsageError, match="not whole yet"):
                _ = stream.reply
            break
    assert it.spend.calls == 1


async def test_what_call_raises_is_raised_while_reading(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"status": 500}]})
    it = chain(rung(scripted_server, "small"))
    with pytest.raises(CallFailed):
        async with it.stream("Count.") as stream:
            _ = [piece async for piece in stream]
