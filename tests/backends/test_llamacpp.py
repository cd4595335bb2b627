from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow.backends.llamacpp import LlamaCppBackend
from agentflow.cascade.confidence import joint_probability, mean_probability
from agentflow.errors import ConfigError, ContextOverflow
from agentflow.messages import Message, Request
from tests.conftest import RUNGS


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


async def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF not really")
    model = LlamaCppBackend(tmp_path / "broken.gguf")
    with pytest.raises(ConfigError, match="cannot load"):
        await model.complete("broken", Request((Message("user", "hi"),), timeout_s=30))
    await model.aclose()


def test_probabilities() -> None:
    assert joint_probability([]) == 1.0
    assert joint_probability([-0.5, -0.5]) == pytest.approx(0.3679, abs=1e-4)
    assert mean_probability([-0.5, -0.5]) == pytest.approx(0.6065, abs=1e-4)
    assert mean_probability([]) == 0.0
