"""What the benchmark of jobs does, how much of it, and what it finds. Imports only the table."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.table import Figure


@dataclass(frozen=True)
class Size:
    """How much is done."""

    kills: int
    takeovers: int
    jobs: int
    running: int
    submitted: int
    compared: int
    echoes: int
    readers: int
    listen_s: float


FULL = Size(100, 3, 1_000, running=200, submitted=300, compared=100, echoes=10_000, readers=200, listen_s=20.0)
QUICK = Size(4, 1, 30, running=30, submitted=50, compared=20, echoes=0, readers=200, listen_s=2.0)


@dataclass
class Found:
    """What one engine came to. None was not measured."""

    kills: int = 0
    server_kills: int = 0
    lost: int = 0
    wrong: int = 0
    repeated_calls: int = 0
    in_doubt: int = 0
    gaps: int = 0
    overspend_ratio: float = 0.0
    takeover_s: float | None = None
    jobs: int = 0
    jobs_per_s: float | None = None
    calls_per_s: float | None = None
    submit_p95_ms: float | None = None
    submit_sdk_p95_ms: float | None = None
    sse_p50_ms: float | None = None
    sse_p95_ms: float | None = None
    sse_events_per_s: float | None = None
    durable_cpu_ratio: float | None = None
    cpu_ms_per_call: float | None = None
    memory_growth: float | None = None
    notes: list[str] = field(default_factory=list)


def figures(engine: str, found: Found) -> list[Figure]:
    """Each figure beside what it is held against."""

    def number(value: float | None, unit: str) -> str:
        return "not measured" if value is None else f"{value:g} {unit}".strip()

    def zero(what: str, value: int) -> Figure:
        measured = found.kills + found.jobs > 0
        shown = f"{value}" if measured else "not measured"
        return Figure(f"{engine}: {what}", shown, "0", value == 0 if measured else None)

    def limited(what: str, value: float | None, unit: str, most: float) -> Figure:
        passed = None if value is None else value <= most
        return Figure(f"{engine}: {what}", number(value, unit), f"at most {most:g} {unit}".strip(), passed)

    def plain(what: str, value: float | None, unit: str = "") -> Figure:
        return Figure(f"{engine}: {what}", number(value, unit))

    return [
        plain("kill -9 of a worker or the server", found.kills),
        plain("of these, of the server", found.server_kills),
        zero("jobs lost", found.lost),
        zero("wrong results", found.wrong),
        zero("finished calls paid again", found.repeated_calls),
        plain("calls cut off and charged in doubt", found.in_doubt),
        zero("readers with a gap or a repeat", found.gaps),
        limited("most spent of a budget", found.overspend_ratio if found.kills else None, "", 1),
        limited("dead worker's job taken up", found.takeover_s, "s", 10),
        plain(f"{found.jobs} jobs of 20 calls at once", found.jobs_per_s, "jobs/s"),
        plain("calls at 50 ms each", found.calls_per_s, "calls/s"),
        limited("submit over HTTP while jobs run, p95", found.submit_p95_ms, "ms", 50),
        limited("submit from Python while jobs run, p95", found.submit_sdk_p95_ms, "ms", 50),
        plain("event to a reader over HTTP, p50", found.sse_p50_ms, "ms"),
        limited("event to a reader over HTTP, p95", found.sse_p95_ms, "ms", 100),
        plain("events delivered meanwhile", found.sse_events_per_s, "/s"),
        plain("CPU of a durable call", found.cpu_ms_per_call, "ms"),
        limited("the same against not durable", found.durable_cpu_ratio, "times", 2),
        limited("memory after all small jobs against a fifth", found.memory_growth, "times", 1.1),
    ]
