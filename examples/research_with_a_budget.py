"""A research job with limits: what it found, what it cost, and what ended it. Needs no model and no key.

python examples/research_with_a_budget.py "How does a budget hold?" docs README.md
"""

from __future__ import annotations

import asyncio
import sys

from agentflow import AgentflowError, Budget, Flow


async def main(question: str, sources: list[str]) -> int:
    async with Flow.from_config() as flow:
        report = await flow.research(question, sources, budget=Budget(usd=0.25, joules=50_000, seconds=60))
    for claim in report.claims:
        places = ", ".join(f"{c.source_id}[{c.start}:{c.end}]" for c in claim.citations)
        print(f"{claim.text}\n    {places}, support {claim.support:.2f}")
    if not report.answered:
        print("The sources do not answer this.")
    if report.ending is not None:
        print(f"Ended early: {report.ending.message}")
    total = report.meter.total
    print(f"{total.calls} calls, ${total.usd}, {total.joules.mean:.3g} J ({total.joules.provenance})")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} QUESTION PATH|URL...")
    try:
        sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
    except AgentflowError as error:
        sys.exit(str(error))
