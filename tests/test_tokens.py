from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.messages import Message, OutputSchema, Request, ToolSpec
from agentflow.tokens import TokenCounter


def ask(text: str, **more: object) -> Request:
    return Request((Message("user", text),), **more)  # type: ignore[arg-type]


def test_openai_models_are_counted_exactly_with_their_framing() -> None:
    counter = TokenCounter.for_model("openai/gpt-4o")
    assert counter.exact
    assert counter.text("Hello world") == 2
    assert counter.prompt(ask("Hello world")) == 9


def test_other_families_are_counted_dearer_and_their_bound_dearer_still() -> None:
    plain, unknown = TokenCounter.for_model("gpt-4"), TokenCounter.for_model("never-heard-of")
    text = "The quick brown fox jumps over the lazy dog. " * 50
    assert unknown.text(text) == pytest.approx(1.25 * plain.text(text), abs=1)
    assert unknown.prompt_bound(ask(text)) > unknown.prompt(ask(text))
    assert not unknown.exact


def test_tools_and_schemas_are_part_of_the_prompt() -> None:
    counter = TokenCounter.for_model("gpt-4o")
    tool = ToolSpec("look_up", "Looks something up.", {"type": "object", "properties": {"what": {"type": "string"}}})
    schema = OutputSchema("Answer", {"type": "object", "properties": {"text": {"type": "string"}}})
    assert (
        counter.prompt(ask("hi"))
        < counter.prompt(ask("hi", tools=(tool,)))
        < counter.prompt(ask("hi", tools=(tool,), schema=schema))
    )


@given(st.text(max_size=2_000))
def test_any_text_can_be_counted(text: str) -> None:
    count = TokenCounter.for_model("gpt-4o").text(text)
    assert (count == 0) == (text == "")
    assert count <= len(text.encode("utf-8", "surrogatepass")) + 1


def test_special_tokens_in_a_text_are_text() -> None:
    assert TokenCounter.for_model("gpt-4o").text("<|endoftext|>") > 1


def test_long_text_is_counted_in_cuts_that_change_nothing() -> None:
    import tiktoken

    text = "".join(f"Line {n} says something about budgets.\n" for n in range(3_000))
    counter = TokenCounter.for_model("gpt-4o")
    counted = counter.text(text)
    encoding = tiktoken.get_encoding("o200k_base")
    assert counted == len(encoding.encode_ordinary(text))


def test_without_a_table_the_count_is_an_estimate_that_says_so(tmp_path: object) -> None:
    code = "from agentflow.tokens import TokenCounter as T; c = T.for_model('gpt-4o'); print(c.exact, c.text('a' * 70))"
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "20"]
