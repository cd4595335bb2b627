"""What a job would cost, before it runs: from the rungs' prices and profiles, scaled by the jobs that ran.

No model is asked. Imports runtime, orchestration, models.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter

from agentflow.budget.currency import MICRO
from agentflow.budget.money import NANO
from agentflow.budget.spend import Quote
from agentflow.cascade.rung import Answer, ModelRung
from agentflow.jobs.effort import effort_of, limits_of
from agentflow.jobs.job import JobFilter, JobSpec, JobSpend, JobState, JobView
from agentflow.messages import Message, Request
from agentflow.orchestration.library import shipped_agents
from agentflow.research.earlier import MOST_CHARS
from agentflow.research.pipeline import reading_cpu_s
from agentflow.research.sources import estimated_bytes
from agentflow.runtime import Runtime
from agentflow.server.access import AdmittingRoute, Submitter
from agentflow.server.research.models import Estimate, EstimateError, Range, ResearchRequest
from agentflow.server.research.submitting import origins_of
from agentflow.server.state import TheServer

router = APIRouter(prefix="/v1", tags=["research"], route_class=AdmittingRoute)
# Fewer jobs than these say too little.
ENOUGH: Final = 5
_RECENT: Final = 100
_NAMES: Final = ("tokens", "usd", "joules", "seconds")
# CPU seconds of a job's own code beside reading: indexing, planning, quoting.
_CODE_CPU_S: Final = 0.5
# Of an answer, where nothing is known of it: claims, and words of each.
_CLAIMS, _CLAIM_WORDS = 6, 30
Figures = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Past:
    """A job that ran: what its configuration alone says of it, and what it spent. Tokens, dollars, joules, seconds."""

    expected: Figures
    spent: Figures


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to look in: characters of text, and bytes that nobody has read and indexed yet."""

    text: int
    unread: int


@router.post("/research:estimate", summary="What a job would cost")
async def estimate_research(server: TheServer, caller: Submitter, request: ResearchRequest) -> Estimate:
    """Middle and 90th percentile in every currency, within the job's limits; no model is asked.

    Until five jobs of the tenant have ended it rests on prices and profiles alone; then it is scaled by what those
    spent, and `error` says how far such estimates were off for them.
    """
    runtime = server.runtime
    spec = request.spec(caller.tenant, await origins_of(server, caller, request), allow_private=False)
    await server.jobs.check(spec)
    which = JobFilter(tenant=caller.tenant, states=(JobState.COMPLETED,), kind="research")
    page = await server.jobs.list(which, limit=_RECENT)
    ran = [job for job in page.jobs if not job.partial]
    ids = [job.id for job in ran] + ([] if spec.previous is None else [spec.previous])
    stored = await server.jobs.source_bytes(ids)
    named = await asyncio.to_thread(_named_bytes, [spec, *(job.spec for job in ran)])
    past = [
        Past(expected(runtime, job.spec, _material(job, named, stored))[0], _figures(job.spend)) for job in ran
    ]  # fmt: skip
    uploads = await server.catalogue.uploads(spec.sources.collections, caller.tenant or "", "")
    unread = named[spec.sources.origins]
    text = unread + sum(upload.characters for upload in uploads)
    material = Material(text if spec.sources.named else stored.get(spec.previous or "", 0), unread)
    middle, most = _scaled(expected(runtime, spec, material), past)
    limits = limits_of(spec.budget, spec.effort, runtime.settings)
    bounds = (limits.tokens, limits.usd, limits.joules, limits.seconds)
    ranges = {
        name: Range(p50=_within(low, bound), p90=_within(max(low, high), bound))
        for name, low, high, bound in zip(_NAMES, middle, most, bounds, strict=True)
    }
    known = len(past) >= ENOUGH
    return Estimate(**ranges, basis="history" if known else "configuration", error=error_of(past) if known else None)


def expected(runtime: Runtime, spec: JobSpec, material: Material) -> tuple[Figures, Figures]:
    """What a job is expected to use by its configuration alone, and the most.

    Expected is the cheapest model rung of each step (planning, synthesis, and those that the request asks for besides),
    each asked once, judges once a claim, with half of the longest reply; the most is every rung that the effort climbs,
    asked twice, with the longest. Reading takes half of the CPU seconds that are held for it, and all of them at most.

    Args:
        runtime: rungs and prices.
        spec: what is asked; its effort says which rungs and how many passages.
        material: of its sources. Dates and domains may leave some of them out.
    """
    depth, agents = effort_of(spec.effort, runtime.settings).depth, shipped_agents()
    least, most = [_reading(runtime, material.unread, 0.5)], [_reading(runtime, material.unread, 1.0)]
    quoted = "word " * (MOST_CHARS // 5) if spec.previous is not None else ""
    for name, told in (("planner", quoted), ("synthesis", quoted), *_finishing(spec)):
        agent = agents[name]
        cascade = runtime.cascade(depth.cascade or agent.cascade, model_rungs=depth.model_rungs)
        rungs = [rung for rung in cascade.rungs if isinstance(rung, ModelRung)]
        read = 0
        if name == "synthesis":
            looks = depth.widened(runtime.settings.research, [rung.context for rung in rungs])
            read = min(looks.most_passages * looks.chunk_chars, material.text)
        asked = f"{told}{spec.query}{'word ' * (read // 5)}"
        request = Request((Message("system", agent.instructions), Message("user", asked)))
        if rungs:
            least.append(rungs[0].quote(request, expected=rungs[0].default_output // 2))
        most += [rung.quote(request) for rung in rungs] * 2
    return _sum(least), _sum(most)


def _reading(runtime: Runtime, unread: int, share: float) -> Quote:
    return runtime.code_rung("code", _nothing, max_cpu_s=_CODE_CPU_S + share * reading_cpu_s(unread)).quote()


def _material(job: JobView, named: Mapping[tuple[str, ...], int], stored: Mapping[str, int]) -> Material:
    """What a job that ran looked in: estimated as for one that has not, for that is what is compared."""
    unread = named[job.spec.sources.origins]
    return Material(max(unread, stored.get(job.id, 0)), unread)


def _named_bytes(specs: Iterable[JobSpec]) -> dict[tuple[str, ...], int]:
    """About how many bytes the sources have that jobs name; many jobs name the same."""
    return {origins: estimated_bytes(origins) for origins in {spec.sources.origins for spec in specs}}


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
