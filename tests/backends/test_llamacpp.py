from __future__ import annotations

import asyncio
import random
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.backends.gguf import fault
from agentflow.backends.llamacpp import LlamaCppBackend
from agentflow.backends.llamacpp_server import LlamaServer, gpus
from agentflow.cascade.confidence import joint_probability, mean_probability
from agentflow.errors import ConfigError, ContextOverflow
from agentflow.messages import Message, OutputSchema, Request, ToolCall, ToolSpec
from tests.conftest import RUNGS
from tests.servers.remade import remade

HELLO = Request((Message("user", "7+5"),), max_output_tokens=8, timeout_s=30)
# A list of digits has no end of its own: only its bound ends it.
DIGITS = OutputSchema("digits", {"type": "array", "items": {"type": "integer"}, "minItems": 1000})
LONG = Request((Message("user", "7+5"),), max_output_tokens=1_200, schema=DIGITS, timeout_s=30)


def generated(server: LlamaServer) -> int:
    """How many tokens a server has generated, by its own counter."""
    request = urllib.request.Request(f"{server.address}/metrics", headers={"Authorization": f"Bearer {server._key}"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        page = reply.read().decode()
    found = re.search(r"^llamacpp:tokens_predicted_total (\d+)", page, re.MULTILINE)
    assert found is not None
    return int(found.group(1))


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[LlamaCppBackend]:
    """A model with a context so long that it can compute for longer than a test takes to leave."""
    path = remade(RUNGS / "large.gguf", tmp_path / "patient.gguf", context_length=8192)
    found = LlamaCppBackend(path, context=8192)
    yield found
    await found.aclose()


@pytest.fixture(params=["small", "large"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, LlamaCppBackend]]:
    found = LlamaCppBackend(RUNGS / f"{request.param}.gguf", context=256)
    yield request.param, found
    await found.aclose()


async def test_confidence_tells_right_answers_from_wrong_ones(backend: tuple[str, LlamaCppBackend]) -> None:
    name, model = backend
    rng = random.Random(7)
    right: list[float] = []
    wrong: list[float] = []
    for _ in range(60):
        digits = rng.randint(1, 5)
        a, b = rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits), rng.randrange(10**digits)
        request = Request((Message("user", f"{a}+{b}"),), max_output_tokens=8, logprobs=True, timeout_s=30)
        completion = await model.complete(name, request)
        assert completion.logprobs is not None
        (right if completion.text.strip() == str(a + b) else wrong).append(joint_probability(completion.logprobs))
    assert len(right) > (45 if name == "large" else 5)
    pairs = [r > w for r in right for w in wrong]
    assert not pairs or sum(pairs) / len(pairs) > 0.8


async def test_a_prompt_too_long_says_how_long(backend: tuple[str, LlamaCppBackend]) -> None:
    name, model = backend
    with pytest.raises(ContextOverflow, match="its context is 256"):
        await model.complete(name, Request((Message("user", "1+" * 400),), max_output_tokens=8, timeout_s=30))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No model file"):
        LlamaCppBackend(tmp_path / "none.gguf")


@pytest.mark.parametrize("data", [b"", b"GG", b"hello world, I am no model"])
def test_a_file_that_is_no_model_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "text.gguf").write_bytes(data)
    with pytest.raises(ConfigError, match="not a GGUF file"):
        LlamaCppBackend(tmp_path / "text.gguf")


@pytest.mark.parametrize(
    ("keep", "said"),
    [(0.5, "its last tensor begins at .*: it is truncated"), (0.001, "within its header, after .*: it is truncated")],
)
async def test_a_truncated_file_is_told(tmp_path: Path, keep: float, said: str) -> None:
    whole = (RUNGS / "small.gguf").read_bytes()
    (tmp_path / "part.gguf").write_bytes(whole[: int(len(whole) * keep)])
    model = LlamaCppBackend(tmp_path / "part.gguf")
    with pytest.raises(ConfigError, match=f"cannot load .*part.gguf: it ends .*{said.split(',')[0]}"):
        await model.complete("part", HELLO)
    await model.aclose()


async def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    whole = bytearray((RUNGS / "small.gguf").read_bytes())
    at = whole.index(b"llama", 30)
    whole[at : at + 5] = b"xxxxx"
    (tmp_path / "odd.gguf").write_bytes(whole)
    model = LlamaCppBackend(tmp_path / "odd.gguf")
    with pytest.raises(ConfigError, match="damaged, or of an architecture"):
        await model.complete("odd", HELLO)
    await model.aclose()


@given(st.data())
@settings(max_examples=40)
def test_no_header_is_too_odd_to_be_explained(data: st.DataObject) -> None:
    whole = bytearray((RUNGS / "small.gguf").read_bytes()[:20_000])
    for _ in range(data.draw(st.integers(0, 20))):
        whole[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(whole[: data.draw(st.integers(0, len(whole)))])
        file.flush()
        assert fault(Path(file.name))


async def test_a_gpu_that_is_not_there_is_told() -> None:
    if gpus():
        pytest.skip("llama.cpp sees a GPU here")
    model = LlamaCppBackend(RUNGS / "small.gguf", gpu_layers=8)
    probe = await model.probe()
    assert not probe.reachable
    assert "sees no GPU" in probe.detail
    with pytest.raises(ConfigError, match=r"8 layers of small\.gguf .* sees none.*gpu_layers = 0"):
        await model.complete("small", HELLO)
    await model.aclose()
    assert "on CPU" in (await LlamaCppBackend(RUNGS / "small.gguf", gpu_layers=0).probe()).detail


async def test_the_loop_goes_on_while_it_computes(patient: LlamaCppBackend) -> None:
    await patient.complete("large", HELLO)
    written: list[str] = []
    prompt = replace(HELLO, messages=(Message("user", "1+" * 1_200),))
    call = asyncio.create_task(patient.complete("large", prompt, lambda delta: written.append(delta.text)))
    ticks = 0
    # Nothing of ours runs in the worker while it reads the prompt: were the GIL held, the loop would stand still.
    while not written and not call.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 200, f"{ticks} turns of the loop in {(await call).timings.prefill_s} s"
    await call


async def test_leaving_a_call_stops_its_generation(patient: LlamaCppBackend) -> None:
    begun = asyncio.Event()
    call = asyncio.create_task(patient.complete("large", LONG, lambda _: begun.set()))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # There is one slot: the next call waits for the first to have stopped.
    await patient.complete("large", HELLO)
    assert 0 < await asyncio.to_thread(generated, patient._load()) < 800
    whole = await patient.complete("large", LONG)
    assert whole.usage.output == LONG.max_output_tokens


async def test_its_port_answers_nobody() -> None:
    model = LlamaCppBackend(RUNGS / "small.gguf")
    await model.complete("small", HELLO)
    request = urllib.request.Request(f"{model._load().address}/v1/chat/completions", b"{}")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        await asyncio.to_thread(urllib.request.urlopen, request, timeout=5)
    await model.aclose()


async def test_a_prompt_is_counted_as_the_model_counts_it() -> None:
    model = LlamaCppBackend(RUNGS / "small.gguf", context=256)
    for text in ("7+5", "a longer question, with words in it: ünïcödé"):
        request = replace(HELLO, messages=(Message("system", "Add."), Message("user", text)))
        assert await model.prompt_tokens(request) == (await model.complete("small", request)).usage.input
    await model.aclose()


async def test_what_a_model_cannot_be_shown_is_told() -> None:
    model = LlamaCppBackend(RUNGS / "small.gguf", context=256)
    tool = ToolSpec("add", "Adds.", {"type": "object", "properties": {}})
    assert (await model.complete("small", HELLO)).ignored == ()
    assert (await model.complete("small", replace(HELLO, tools=(tool,), cache_salt="t"))).ignored == (
        "tools", "cache_salt",
    )  # fmt: skip
    await model.aclose()


async def test_a_template_with_a_place_for_tools_shows_them(tmp_path: Path) -> None:
    template = (
        "{% if tools %}{% for t in tools %}{{ t | tojson }};{% endfor %}{% endif %}"
        "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>\n"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
        "{% endfor %}{% endif %}{% if m.content %}{{ m.content }}={% endif %}{% endfor %}"
    )
    path = remade(RUNGS / "small.gguf", tmp_path / "tools.gguf", chat_template=template, context_length=1024)
    model = LlamaCppBackend(path, context=1024)
    tool = ToolSpec("add", "Adds two numbers.", {"type": "object", "properties": {"a": {"type": "integer"}}})
    bare, shown = await model.prompt_tokens(HELLO), await model.prompt_tokens(replace(HELLO, tools=(tool,)))
    assert shown > bare + len("add: Adds two numbers.") // 2
    completion = await model.complete("small", replace(HELLO, tools=(tool,)))
    assert completion.ignored == ()
    call = ToolCall("1", "add", '{"a": 7}')
    turns = (*HELLO.messages, Message("assistant", "", (call,)), Message("tool", "12", tool_call_id="1"))
    asked = replace(HELLO, messages=turns, tools=(tool,))
    assert await model.prompt_tokens(asked) > shown
    await model.complete("small", asked)
    await model.aclose()


async def test_cached_tokens_are_told() -> None:
    model = LlamaCppBackend(RUNGS / "small.gguf", context=256)
    request = replace(HELLO, messages=(Message("user", "1+2+3+4+5"),))
    first, second = [await model.complete("small", request) for _ in range(2)]
    assert first.usage.cached_input == 0
    assert 0 < second.usage.cached_input < second.usage.input == first.usage.input
    await model.aclose()


def test_probabilities() -> None:
    assert joint_probability([]) == 1.0
    assert joint_probability([-0.5, -0.5]) == pytest.approx(0.3679, abs=1e-4)
    assert mean_probability([-0.5, -0.5]) == pytest.approx(0.6065, abs=1e-4)
    assert mean_probability([]) == 0.0
