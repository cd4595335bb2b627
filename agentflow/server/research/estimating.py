"""What a job would cost, before it runs: from the rungs' prices and profiles, scaled by the jobs that ran.

No model is asked. Imports runtime, orchestration, models.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter

from agentflow.budget.currency import MICRO
from agentflow.budget.money import NANO
from agentflow.budget.spend import Quote
from agentflow.cascade.rung import Answer, ModelRung
from agentflow.jobs.effort import limits_of
from agentflow.jobs.job import JobFilter, JobSpec, JobSpend, JobState
from agentflow.messages import Message, Request
from agentflow.orchestration.library import shipped_agents
from agentflow.runtime import Runtime, budget_of
from agentflow.server.access import AdmittingRoute, Submitter
from agentflow.server.research.models import Estimate, EstimateError, Range, ResearchRequest
from agentflow.server.state import TheServer

router = APIRouter(prefix="/v1", tags=["research"], route_class=AdmittingRoute)
# Fewer jobs than these say too little.
ENOUGH: Final = 5
_RECENT: Final = 100
_NAMES: Final = ("tokens", "usd", "joules", "seconds")
# CPU seconds of a job's own code: reading, indexing, planning, quoting.
_CODE_CPU_S: Final = 0.5
# Of an answer, where nothing is known of it: claims, and words of each.
_CLAIMS, _CLAIM_WORDS = 6, 30
Figures = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Past:
    """A job that ran: what its configuration alone says of it, and what it spent. Tokens, dollars, joules, seconds."""

    expected: Figures
    spent: Figures


@router.post("/research:estimate", summary="What a job would cost")
async def estimate_research(server: TheServer, caller: Submitter, request: ResearchRequest) -> Estimate:
    """Middle and 90th percentile in every currency, within the job's limits; no model is asked.

    Until five jobs of the tenant have ended it rests on prices and profiles alone; then it is scaled by what those
    spent, and `error` says how far such estimates were off for them.
    """
    runtime = server.runtime
    which = JobFilter(tenant=caller.tenant, states=(JobState.COMPLETED,), kind="research")
    page = await server.jobs.list(which, limit=_RECENT)
    past = [Past(expected(runtime, job.spec)[0], _figures(job.spend)) for job in page.jobs if not job.partial]
    spec = request.spec(caller.tenant, (), allow_private=False)
    middle, most = _scaled(expected(runtime, spec), past)
    limits = limits_of(spec.budget, spec.effort, budget_of(runtime.settings.budget))
    bounds = (limits.tokens, limits.usd, limits.joules, limits.seconds)
    ranges = {
        name: Range(p50=_within(low, bound), p90=_within(max(low, high), bound))
        for name, low, high, bound in zip(_NAMES, middle, most, bounds, strict=True)
    }
    known = len(past) >= ENOUGH
    return Estimate(**ranges, basis="history" if known else "configuration", error=error_of(past) if known else None)


def expected(runtime: Runtime, spec: JobSpec) -> tuple[Figures, Figures]:
    """What a job is expected to use by its configuration alone, and the most.

    Expected is the cheapest model rung of each step (planning, synthesis, and those that the request asks for besides),
    each asked once, judges once a claim, with half of the longest reply; the most is every rung, asked twice, with the
    longest.
    """
    research, agents = runtime.settings.research, shipped_agents()
    read = "word " * (research.most_passages * research.chunk_chars // 5)
    code = runtime.code_rung("code", _nothing, max_cpu_s=_CODE_CPU_S).quote()
    least, most = [code], [code]
    for name, material in (("planner", ""), ("synthesis", read), *_finishing(spec)):
        agent = agents[name]
        request = Request((Message("system", agent.instructions), Message("user", spec.query + material)))
        rungs = [rung for rung in runtime.cascade(agent.cascade).rungs if isinstance(rung, ModelRung)]
        if rungs:
            least.append(rungs[0].quote(request, expected=rungs[0].default_output // 2))
        most += [rung.quote(request) for rung in rungs] * 2
    return _sum(least), _sum(most)


def _finishing(spec: JobSpec) -> list[tuple[str, str]]:
    """The calls that a request asks for after the claims, and what each has to read."""
    claims, judged, output = "word " * (_CLAIMS * _CLAIM_WORDS), spec.verify == "judged", spec.output
    steps = [("verification", "word " * (2 * _CLAIM_WORDS))] * _CLAIMS if judged else []
    if output.language is not None:
        steps.append(("translation", claims))
    if output.json_schema is not None:
        steps.append(("shaping", claims + json.dumps(dict(output.json_schema))))
    return steps


def error_of(past: Sequence[Past]) -> EstimateError:
    """How far off the estimate of each job is that is made from all the others."""
    off, within = list[float](), 0
    place = 0 if any(job.spent[0] for job in past) else 2
    for number, job in enumerate(past):
        others = [*past[:number], *past[number + 1 :]]
        middle, most = _scaled((job.expected, job.expected), others, enough=1)
        spent = job.spent[place]
        off.append(abs(middle[place] - spent) / spent if spent else 0.0)
        within += spent <= most[place]
    return EstimateError(jobs=len(past), median=statistics.median(off), within_p90=within / len(past))


def _scaled(
    configured: tuple[Figures, Figures], past: Sequence[Past], *, enough: int = ENOUGH
) -> tuple[list[float], list[float]]:
    """The figures of the configuration, scaled by how the jobs that ran compared with theirs."""
    if len(past) < enough:
        return list(configured[0]), list(configured[1])
    middle, most = list[float](), list[float]()
    for place, figure in enumerate(configured[0]):
        ratios = sorted(job.spent[place] / job.expected[place] if job.expected[place] else 1.0 for job in past)
        middle.append(figure * statistics.median(ratios))
        most.append(figure * ratios[math.ceil(0.9 * len(ratios)) - 1])
    return middle, most


def _sum(quotes: Sequence[Quote]) -> Figures:
    return (
        float(sum(quote.tokens for quote in quotes)), sum(quote.nano_usd for quote in quotes) / NANO,
        sum(quote.microjoules for quote in quotes) / MICRO, sum(max(quote.seconds, 0.1) for quote in quotes),
    )  # fmt: skip


def _figures(spend: JobSpend) -> Figures:
    return (float(spend.tokens), float(spend.usd), spend.joules, spend.seconds)


def _nothing(_: object) -> Answer:
    return Answer(None)


def _within(figure: float, bound: object) -> float:
    return figure if bound is None else min(figure, float(str(bound)))
