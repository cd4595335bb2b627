"""A hand-made report, and one with anything that a source or a model may put into it."""

from __future__ import annotations

import hashlib

from agentflow.research.report import (
    AttemptLine,
    Citation,
    Claim,
    Ending,
    EnergyFigure,
    Limit,
    Meter,
    MeterLine,
    Report,
    SkippedSource,
    SourceEntry,
    SubQuestion,
    Unsupported,
)

TIDES = (
    "# Tides\n\nThe tide in the Bay of Fundy rises by 16 metres. The moon pulls the water twice a day.\n"
    + "More. " * 900
)
EVIL = (
    "He said <script>alert(1)</script> and [click](javascript:alert(1)) "
    "\x1b[31mred\x1b[0m \u202eback\u202c | `code`\n# not a heading"
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def cite(source: str, text: str, quote: str) -> Citation:
    start = text.index(quote)
    return Citation(source_id=source, start=start, end=start + len(quote), quote=quote, sha256=digest(text))


def line(node: str, tokens: int = 0) -> MeterLine:
    joules = EnergyFigure(mean=1_200.0, low=300.0, high=5_000.0, provenance="modelled")
    return MeterLine(
        node=node, calls=2, input_tokens=tokens, cached_input_tokens=0, output_tokens=tokens // 4, usd="0.0031",
        joules=joules, seconds=1.25, in_doubt_calls=0,
    )  # fmt: skip


def entry(source: str, text: str, title: str) -> SourceEntry:
    return SourceEntry(
        id=source, origin=f"docs/{source}.md", title=title, sha256=digest(text), read_at="2026-11-20T10:00:00+00:00",
        media_type="text/markdown", characters=len(text), file=f"sources/{source}.txt",
    )  # fmt: skip


def report(**changes: object) -> tuple[Report, dict[str, str]]:
    texts = {"s1": TIDES, "s2": EVIL}
    rises = "The tide in the Bay of Fundy rises by 16 metres."
    both = f"{rises} The moon pulls the water"
    made = Report(
        job="20261120-100000-abcd",
        question="How high is the tide, and who said what?",
        answered=True,
        sub_questions=(SubQuestion(text="How high?", answered=True), SubQuestion(text="Who?", answered=True)),
        claims=(
            Claim(text=rises, citations=(cite("s1", TIDES, rises),), question=0, support=1.0),
            Claim(
                text="The moon pulls.",
                citations=(cite("s1", TIDES, both), cite("s1", TIDES, rises)),
                question=0,
                support=0.8,
            ),
            Claim(text=EVIL, citations=(cite("s2", EVIL, EVIL[3:60]),), question=1, support=0.7),
        ),
        unsupported=(Unsupported(text="It rises by 99 metres.", reason="the number 99 is not in the cited text"),),
        sources=(entry("s1", TIDES, "Tides"), entry("s2", EVIL, EVIL)),
        sources_read=3,
        skipped=(SkippedSource(origin="docs/x.png", reason="is a binary file, not text"),),
        rungs={"planning": "heuristic planner (code)", "synthesis": "small (model)"},
        meter=Meter(
            total=line("job", 4_000),
            parts=(line("planner", 400), line("synthesis", 3_600)),
            limits=(
                Limit(currency="tokens", limit="8000", spent="5000"),
                Limit(currency="usd", limit="0.25", spent="0.0031"),
            ),
            attempts=(
                AttemptLine(
                    call="synthesis/synthesise", rung="small", kind="model", served=True, verdict="accepted",
                    confidence=0.9, tokens=4_500, usd="0.0031", joules=1_200.0, seconds=1.1,
                ),
            ),
        ),
        created="2026-11-20T10:00:05+00:00",
        ending=None,
    )  # fmt: skip
    return made.model_copy(update=changes), texts


ENDED = Ending(
    reason="budget", currency="usd", message="Budget exceeded: 'job' has spent $0.25.", undone=("synthesis",)
)
