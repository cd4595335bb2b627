"""A cascade of three local models that climbs on the models' own token probabilities.

The models are the tiny adders of tests/fixtures/rungs (pip install 'agentflow[local]'): they add two numbers.

    python examples/cascade_on_confidence.py 3+4 123+456 12+7
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agentflow import Budget, Flow, Settings, token_confidence

RUNGS = Path(__file__).parents[1] / "tests" / "fixtures" / "rungs"


async def main(questions: list[str]) -> None:
    models = {
        name: {
            "backend": "llamacpp",
            "path": RUNGS / f"{name}.gguf",
            "context": 256,
            "logprobs": True,
            "default_output": 8,
        }
        for name in ("small", "medium", "large")
    }
    async with Flow(Settings.model_validate({"models": models})) as flow:
        async with flow.chain("sums", budget=Budget(joules=20_000, seconds=60)) as chain:
            for question in questions:
                reply = await chain.call(question, checks=(token_confidence,))
                print(f"{question} = {reply.output} by {reply.rung}, confidence {reply.confidence:.2f}")
                for attempt in reply.attempts:
                    print(f"    {attempt.rung}: {attempt.outcome} {attempt.reason}")
            print(f"{chain.spend.calls} attempts, {chain.spend.tokens} tokens, {chain.spend.energy}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["3+4", "123+456", "12+7"]))
