from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.messages import Message, OutputSchema, Request, ToolCall, ToolSpec
from agentflow.tokens import TokenCounter

TOOL = ToolSpec("look_up", "Looks something up.", {"type": "object", "properties": {"what": {"type": "string"}}})
SCHEMA = OutputSchema("Answer", {"type": "object", "properties": {"text": {"type": "string"}}})


def ask(text: str, **more: object) -> Request:
    return Request((Message("user", text),), **more)  # type: ignore[arg-type]


def in_fresh_python(code: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_openai_models_are_counted_exactly_with_their_framing() -> None:
    counter = TokenCounter.for_model("openai/gpt-4o")
    assert counter.exact
    assert counter.text("Hello world") == 2
    assert counter.prompt(ask("Hello world")) == 9


@pytest.mark.parametrize(
    ("model", "encoding", "exact"),
    [
        ("gpt-5-mini", "o200k_base", True), ("azure/gpt-4.1", "o200k_base", True), ("o3", "o200k_base", True),
        ("ft:gpt-4o-mini:me", "o200k_base", True), ("openai/gpt-oss-20b", "o200k_harmony", True),
        ("gpt-3.5-turbo", "cl100k_base", True), ("gpt-35-turbo", "cl100k_base", True),
        ("o3dn", "cl100k_base", False), ("gpt-4all", "cl100k_base", False), ("qwen2.5-7b", "cl100k_base", False),
    ],
)  # fmt: skip
def test_a_model_is_counted_with_its_own_table_or_not_called_exact(model: str, encoding: str, exact: bool) -> None:
    counter = TokenCounter.for_model(model)
    assert (counter.encoding, counter.exact) == (encoding, exact)


def test_other_families_are_counted_dearer_and_their_bound_dearer_still() -> None:
    plain, unknown = TokenCounter.for_model("gpt-4"), TokenCounter.for_model("never-heard-of")
    text = "The quick brown fox jumps over the lazy dog. " * 50
    assert unknown.text(text) == pytest.approx(1.25 * plain.text(text), abs=1)
    assert unknown.prompt_bound(ask(text)) > unknown.prompt(ask(text))
    assert not unknown.exact


def test_a_bound_allows_for_digits_one_by_one_and_for_scripts_byte_by_byte() -> None:
    counter = TokenCounter.for_model("qwen2.5-7b-instruct")
    assert counter.prompt_bound(ask("1234567890" * 50)) >= 500
    assert counter.prompt_bound(ask("你好世界" * 100)) >= 1_200


def test_tools_and_schemas_are_part_of_the_prompt() -> None:
    counter = TokenCounter.for_model("gpt-4o")
    assert (
        counter.prompt(ask("hi"))
        < counter.prompt(ask("hi", tools=(TOOL,)))
        < counter.prompt(ask("hi", tools=(TOOL,), schema=SCHEMA))
        < counter.prompt_bound(ask("hi", tools=(TOOL,), schema=SCHEMA))
    )
    called = Message("assistant", "", (ToolCall("1", "look_up", '{"what": "budget"}'),))
    assert counter.prompt(Request((called,))) > counter.prompt(Request((Message("assistant", ""),)))


characters = st.characters(exclude_categories=()) | st.sampled_from("  \n\n=0aé你😀\ud800")


@given(st.text(characters, max_size=2_000), st.sampled_from(["gpt-4o", "gpt-4", "claude-x", "never-heard-of"]))
def test_any_text_can_be_counted_and_no_count_passes_its_bound(text: str, model: str) -> None:
    counter = TokenCounter.for_model(model)
    count = counter.text(text)
    assert (count == 0) == (text == "")
    assert counter.prompt(ask(text)) <= counter.prompt_bound(ask(text))
    if counter.exact:
        assert count <= len(text.encode("utf-8", "replace")) * 3 + 1


@given(
    st.lists(st.text(characters, max_size=200), max_size=4), st.sampled_from(["gpt-4o", "claude-x", "never-heard-of"])
)
def test_no_prompt_is_counted_higher_than_its_bytes(texts: list[str], model: str) -> None:
    tools = (ToolSpec("look", "Looks.", {"type": "object"}),) if len(texts) > 1 else ()
    calls = (ToolCall("1", "look", '{"at": 1}'),) if len(texts) > 2 else ()
    request = Request(tuple(Message("user", text, calls) for text in texts), tools=tools)
    counter = TokenCounter.for_model(model)
    assert counter.prompt(request) <= counter.at_most(request)


def test_a_prompt_is_counted_the_same_again_also_when_its_count_was_forgotten() -> None:
    counter = TokenCounter.for_model("gpt-4o")
    first = counter.prompt(ask("Hello world"))
    assert counter.prompt(ask("Hello world")) == first
    for n in range(5_000):
        counter.prompt(ask(str(n)))
    assert counter.prompt(ask("Hello world")) == first
    assert counter.prompt(Request((Message("user", "Hello "), Message("user", "world")))) != first


def test_special_tokens_in_a_text_are_text() -> None:
    assert TokenCounter.for_model("gpt-4o").text("<|endoftext|>") > 1


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"Line {n} says something about budgets.\n" for n in range(3_000)),
        "".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(3_000)),
        "one long line that never ends " * 2_000,
        ("paragraph" + "\n" * 60) * 1_000,
    ],
    ids=["lines", "code", "one line", "blank lines"],
)
def test_long_text_is_counted_in_cuts_that_change_nothing(text: str) -> None:
    import tiktoken

    counted = TokenCounter.for_model("gpt-4o").text(text)
    assert counted == len(tiktoken.get_encoding("o200k_base").encode_ordinary(text))


def test_a_long_run_without_any_place_to_cut_is_counted_within_a_token_per_cut() -> None:
    import tiktoken

    text = "x" * 100_000
    counted = TokenCounter.for_model("gpt-4o").text(text)
    assert counted == pytest.approx(len(tiktoken.get_encoding("o200k_base").encode_ordinary(text)), abs=6)


def test_threads_that_count_first_together_agree() -> None:
    code = (
        "import threading; from agentflow.tokens import TokenCounter as T; out = []\n"
        "def count(): out.append(T.for_model('gpt-4o').text('Hello world'))\n"
        "ts = [threading.Thread(target=count) for _ in range(8)]\n"
        "for t in ts: t.start()\nfor t in ts: t.join()\nprint(*out)"
    )
    assert in_fresh_python(code) == ["2"] * 8


def test_importing_the_counter_imports_no_tokenizer_and_counting_leaves_the_environment_alone() -> None:
    code = (
        "import os, sys; before = dict(os.environ); import agentflow.tokens as t;"
        "print('tiktoken' in sys.modules); t.TokenCounter.for_model('gpt-4o').text('x');"
        "print('litellm' in sys.modules, dict(os.environ) == before)"
    )
    assert in_fresh_python(code) == ["False", "False", "True"]


NO_LITELLM = "import sys; sys.modules['litellm'] = None;"
COUNT = "from agentflow.tokens import TokenCounter as T; c = T.for_model('gpt-4o'); print(c.exact, c.text('a' * 70))"


def test_without_a_table_the_count_is_an_estimate_that_says_so(tmp_path: Path) -> None:
    nowhere = {"XDG_CACHE_HOME": str(tmp_path), "TIKTOKEN_CACHE_DIR": str(tmp_path / "none")}
    assert in_fresh_python(NO_LITELLM + COUNT, **nowhere) == ["False", "20"]


def test_tables_are_copied_once_and_a_broken_copy_is_mended_not_downloaded(tmp_path: Path) -> None:
    assert in_fresh_python(COUNT, XDG_CACHE_HOME=str(tmp_path), TIKTOKEN_CACHE_DIR="")[0] == "True"
    (table,) = (tmp_path / "agentflow" / "tiktoken").iterdir()
    whole = table.read_bytes()
    table.write_bytes(whole[:1_000])
    assert in_fresh_python(COUNT, XDG_CACHE_HOME=str(tmp_path), TIKTOKEN_CACHE_DIR="")[0] == "True"
    assert table.read_bytes() == whole
    (tmp_path / "own").mkdir()
    assert in_fresh_python(COUNT, XDG_CACHE_HOME=str(tmp_path), TIKTOKEN_CACHE_DIR=str(tmp_path / "own"))[0] == "True"
    own = {"TIKTOKEN_CACHE_DIR": str(table.parent), "XDG_CACHE_HOME": str(tmp_path / "elsewhere")}
    assert in_fresh_python(NO_LITELLM + COUNT, **own)[0] == "True"


def test_a_cache_folder_that_cannot_be_made_leaves_an_estimate(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert in_fresh_python(COUNT, XDG_CACHE_HOME=str(blocked), TIKTOKEN_CACHE_DIR="")[0] == "False"


def test_many_threads_count_many_messages_without_error() -> None:
    counter = TokenCounter.for_model("never-heard-of")
    failed: list[BaseException] = []

    def count(seed: int) -> None:
        try:
            for n in range(1_500):
                counter.prompt(ask(f"message {n % 700} of {seed % 2}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=count, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
