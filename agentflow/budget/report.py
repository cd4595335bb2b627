"""Report: what entries of a ledger add up to, group by group, and the figures that operators steer by.

Pure: entries in, a frozen ``SpendReport`` out, one entry at a time. Imports ledger.base, tally, windows. Next:
``report_formats`` (JSON, CSV), ``plots``.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final, Literal, get_args

from agentflow.budget.currency import MICRO, NOTHING, Amounts
from agentflow.budget.ledger.base import REUSE, Entry, State
from agentflow.budget.line import as_amounts
from agentflow.budget.spend import Emissions, Spend, microjoules
from agentflow.budget.tally import Tally
from agentflow.budget.windows import period_name
from agentflow.energy.interval import Energy
from agentflow.errors import UsageError

GroupBy = Literal[
    "total", "tenant", "job", "chain", "agent", "call", "model", "rung", "hour", "day", "week", "month",
]  # fmt: skip
GROUPS: Final[tuple[GroupBy, ...]] = get_args(GroupBy)
PERIODS: Final[tuple[GroupBy, ...]] = ("hour", "day", "week", "month")
# What stands in the place of a model where plain code served.
CODE: Final = "(code)"
JOULES_PER_KWH: Final = 3_600_000
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that replies took, by nearest rank: at least 50, 95, 99 % of ``replies`` took no longer."""

    p50: float
    p95: float
    p99: float
    replies: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What checks thought of replies, against what these replies took.

    Args:
        scored: settled attempts at models that have a score and a figure of joules.
        mean_score: the mean of their scores; a score is the confidence 0..1 that the checks gave.
        mean_joules: the mean of their joules, each the middle of its interval.
    """

    scored: int
    mean_score: float
    mean_joules: float

    @property
    def per_joule(self) -> float:
        """Score per joule: ``mean_score / mean_joules``. What a joule buys, not what a reply is worth."""
        return self.mean_score / self.mean_joules


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One group of attempts.

    Sums count everything that was charged, attempts in doubt at their worst case. An attempt that is still held is
    in ``held`` and not yet in ``spent``; one that was released cost nothing and is only counted.

    Args:
        group: the label or period that its attempts share; empty when they have none.
        attempts: how many there are in each state.
        spent: what they were charged. ``seconds`` adds up the attempts, side by side or not.
        held: what is held for attempts that have not ended, in the order of ``currency.COUNTED``.
        replays: how often replies were given again from the ledger, at no cost.
        reused: calls that were answered by a reply of an earlier one, at no cost; they are among ``attempts``.
        first_token: seconds to the first token, of settled attempts at models whose reply was streamed.
        whole_call: seconds from sending to the whole reply, of settled attempts at models, by the backend's own
            clock: neither the queue before nor the ledger's commit after is in it.
        quality: score against joules; None where no check gave a score.
    """

    group: str
    attempts: Mapping[State, int]
    spent: Spend
    held: Amounts
    replays: int
    first_token: Latency | None
    whole_call: Latency | None
    quality: Quality | None
    reused: int = 0

    @property
    def joules(self) -> Energy | None:
        """The joules, mean and 90 % interval; None when tokens were used and nothing is known of their joules."""
        return None if self.spent.energy.high == 0.0 and self.spent.tokens else self.spent.energy

    @property
    def co2e(self) -> Emissions | None:
        """Micrograms of CO2 equivalent; None when energy was used and nothing is known of its grams."""
        grams = self.spent.co2e
        return None if grams.high == 0 and (self.spent.tokens or self.spent.energy.high > 0.0) else grams

    @property
    def cache_hits(self) -> float | None:
        """Share 0..1 of the input tokens that were read from the provider's cache; None without input tokens."""
        usage = self.spent.usage
        return usage.cached_input / usage.input if usage.input else None

    @property
    def nano_usd_per_million_tokens(self) -> int | None:
        """Nano-dollars of a million tokens, input and output together, to the nearest; None without tokens."""
        tokens = self.spent.tokens
        return round(Fraction(self.spent.nano_usd * _MILLION, tokens)) if tokens else None

    @property
    def kwh_per_million_tokens(self) -> float | None:
        """Kilowatt-hours (3.6 MJ) of a million tokens, at the mean of the joules; None when either is unknown."""
        joules, tokens = self.joules, self.spent.tokens
        return joules.mean / JOULES_PER_KWH * _MILLION / tokens if joules is not None and tokens else None


@dataclass(frozen=True, slots=True)
class SpendReport:
    """Lines by group, and all of them together. Lines of periods are in their order, others dearest first."""

    by: GroupBy
    lines: tuple[ReportLine, ...]
    total: ReportLine


def spend_report(entries: Iterable[Entry], by: GroupBy = "total") -> SpendReport:
    """Add up entries.

    Args:
        entries: any, in any order; each is looked at once and not kept.
        by: what their groups are: a label, or the hour, day, ISO week or month (UTC) in which they were opened.

    Raises:
        UsageError: there is no such grouping.

    Example:
        >>> spend_report([], by="model").total.spent.nano_usd
        0
    """
    reckoning = Reckoning(by)
    for entry in entries:
        reckoning.add(entry)
    return reckoning.report()


class Reckoning:
    """A report in the making: takes entries one by one, keeps sums, and two numbers of each reply for percentiles.

    Args:
        by: as in ``spend_report``.
    """

    def __init__(self, by: GroupBy = "total") -> None:
        if by not in GROUPS:
            raise UsageError(f"A report cannot be grouped by '{by}'. It can be by {', '.join(GROUPS)}.")
        self._by: GroupBy = by
        self._groups: dict[str, _Group] = {}
        self._total = _Group()

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        name = group_of(entry, self._by)
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group()
        group.add(entry)
        self._total.add(entry)

    def report(self) -> SpendReport:
        """What has been counted so far."""
        lines = [group.line(name) for name, group in self._groups.items()]
        if self._by in PERIODS:
            lines.sort(key=lambda line: line.group)
        else:
            lines.sort(key=lambda line: (-line.spent.nano_usd, -line.spent.microjoules, line.group))
        return SpendReport(self._by, tuple(lines), self._total.line("total"))


def group_of(entry: Entry, by: GroupBy) -> str:
    """The group that an entry belongs to; empty when its label was not said."""
    labels = entry.labels
    match by:
        case "total":
            return "total"
        case "model":
            return labels.model or (CODE if labels.kind == "code" else "")
        case "hour" | "day" | "week" | "month":
            return period_name(by, datetime.fromtimestamp(entry.opened_ms // 1000, UTC))
        case _:
            return getattr(labels, by)


class _Group:
    """Sums of one group."""

    __slots__ = ("_attempts", "_first_token_s", "_held", "_replays", "_reused", "_score", "_scored", "_scored_uj",
                 "_seconds", "_tally")  # fmt: skip

    def __init__(self) -> None:
        self._attempts: Counter[State] = Counter()
        self._tally = Tally()
        self._held = list(NOTHING)
        self._replays = self._reused = 0
        self._first_token_s, self._seconds = array("d"), array("d")
        self._scored = self._scored_uj = 0
        # Exact, so that a report does not depend on the order of its entries.
        self._score = Fraction(0)

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        self._attempts[entry.state] += 1
        self._replays += entry.replays
        if entry.state == "held":
            for place, amount in enumerate(entry.held.amounts):
                self._held[place] += amount
        elif entry.spend is not None:
            self._tally.add(entry.spend)
            self._reused += entry.labels.kind == REUSE
            if entry.state == "settled" and entry.labels.kind not in ("code", REUSE):
                self._reply(entry, entry.spend)

    def _reply(self, entry: Entry, spend: Spend) -> None:
        self._seconds.append(spend.seconds)
        if entry.first_token_s is not None:
            self._first_token_s.append(entry.first_token_s)
        if entry.score is not None and spend.energy.mean > 0.0:
            self._scored += 1
            self._score += Fraction(entry.score)
            self._scored_uj += microjoules(spend.energy.mean)

    def line(self, name: str) -> ReportLine:
        """The sums as they stand."""
        quality = None
        if self._scored and self._scored_uj:
            quality = Quality(self._scored, float(self._score / self._scored), self._scored_uj / self._scored / MICRO)
        return ReportLine(
            name, dict(self._attempts), self._tally.total(), as_amounts(self._held), self._replays,
            latency(self._first_token_s), latency(self._seconds), quality, self._reused,
        )  # fmt: skip


def latency(seconds: Iterable[float]) -> Latency | None:
    """Percentiles of some durations by nearest rank, so that each is a duration that was seen; None without any."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    # In whole numbers: the k-th smallest of n, k = percent * n / 100 rounded up.
    p50, p95, p99 = (ordered[-(-percent * len(ordered) // 100) - 1] for percent in (50, 95, 99))
    return Latency(p50, p95, p99, len(ordered))
