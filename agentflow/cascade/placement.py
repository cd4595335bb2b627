"""Where and when a call is served: which region of a rung, and which hour, among those that are admitted.

A residency rule is law: a region that it does not admit is never chosen, whatever it would save. Among the admitted
the policy weighs dollars, grams and seconds by shadow prices. A call that may wait holds nothing while it does.
May import rung, the grid and errors. ``cascade`` asks where, ``chain`` asks when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from agentflow.budget.money import NANO
from agentflow.cascade.rung import ModelRung, Rung
from agentflow.energy.estimate import CallFacts
from agentflow.energy.grid import HourlyTable, Place, emissions, power_cost
from agentflow.errors import UsageError
from agentflow.messages import Request, Timings, TokenUsage

# The social cost that public bodies put on a tonne of CO2 is 50 to 250 dollars (EPA 2023: 190); assumed: 100.
USD_PER_KG_CO2E: Final = 0.1
_NAP_S: Final = 60.0
# No forecast of a grid or of a price of power looks further ahead.
_FURTHEST: Final = timedelta(days=14)
Residency = tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What one attempt is expected to cost in one region: dollars, grams of CO2 equivalent, seconds of way and wait.

    ``seconds`` is None when nobody said.
    """

    site: str
    usd: float
    grams: float
    seconds: float | None = None


class PlacementPolicy(Protocol):
    """Chooses among admitted regions."""

    def price(self, site: SiteFacts) -> float:
        """What a call there is worth avoiding, in dollars: the least is chosen, the first of equals."""
        ...


@dataclass(frozen=True, slots=True)
class ShadowPrices:
    """Dollars as they are; grams and seconds at what they are worth to you.

    Args:
        usd_per_kg_co2e: dollars a kilogram of CO2 equivalent.
        usd_per_hour: dollars an hour of waiting for a reply.

    Example:
        >>> ShadowPrices(usd_per_kg_co2e=0.1, usd_per_hour=36).price(SiteFacts("eu", 0.002, 1.0, 0.5))
        0.0071
    """

    usd_per_kg_co2e: float = USD_PER_KG_CO2E
    usd_per_hour: float = 0.0

    def price(self, site: SiteFacts) -> float:
        """``usd + grams / 1000 * usd_per_kg_co2e + seconds / 3600 * usd_per_hour``."""
        waited = (site.seconds or 0.0) / 3600 * self.usd_per_hour
        return site.usd + site.grams / 1000 * self.usd_per_kg_co2e + waited


class WhenPolicy(Protocol):
    """Chooses the moment at which a call that may wait is sent."""

    def when(self, now: datetime, latest: datetime, price: Callable[[datetime], float | None]) -> datetime:
        """A moment from ``now`` to ``latest``.

        Args:
            now: the present, with its zone.
            latest: the last moment at which it can be sent and still be in time.
            price: what the call is expected to cost in the hour of a moment, in shadow-priced dollars; None when
                nobody knows that hour.
        """
        ...


@dataclass(frozen=True, slots=True)
class CheapestHour:
    """Wait for the hour with the least price, the earliest of equals, if it saves enough.

    Args:
        saving: the least share of the present price that waiting must save.
    """

    saving: float = 0.05

    def when(self, now: datetime, latest: datetime, price: Callable[[datetime], float | None]) -> datetime:
        """The start of the best known hour of the next 14 days; now, when this hour is not known or none is better."""
        present = price(now)
        if present is None:
            return now
        best, least = now, present - abs(present) * self.saving
        hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        latest = min(latest, now + _FURTHEST)
        while hour <= latest:
            then = price(hour)
            if then is not None and then < least:
                best, least = hour, then
            hour += timedelta(hours=1)
        return best


class Clock(Protocol):
    """The wall clock, and how one waits for it. Tests drive their own."""

    def now(self) -> datetime:
        """The present, in UTC."""
        ...

    async def sleep_until(self, at: datetime) -> None:
        """Wait for a moment. Cancelling the wait ends it."""
        ...


class WallClock:
    """This machine's clock. Naps are short, so that a clock that is set, or a machine that slept, is noticed."""

    def now(self) -> datetime:
        """The present, in UTC."""
        return datetime.now(UTC)

    async def sleep_until(self, at: datetime) -> None:
        """Wait for a moment."""
        while (left := (at - self.now()).total_seconds()) > 0:  # noqa: ASYNC110 - time is what is waited for
            await asyncio.sleep(min(left, _NAP_S))


@dataclass(frozen=True, slots=True)
class Placement:
    """How a process places its calls.

    Args:
        policy: weighs admitted regions.
        hour: weighs hours, for calls that may wait.
        carbon: grams of each hour by zone; yearly averages where it says nothing.
        power: dollars of a kilowatt-hour by zone and hour, for zones where you pay for the power yourself.
        clock: the time.
    """

    policy: PlacementPolicy = field(default_factory=ShadowPrices)
    hour: WhenPolicy = field(default_factory=CheapestHour)
    carbon: HourlyTable | None = None
    power: HourlyTable | None = None
    clock: Clock = field(default_factory=WallClock)

    def place(self, rung: ModelRung, request: Request, rules: Residency) -> tuple[ModelRung, str]:
        """The region of a rung that serves a request.

        Returns:
            The rung as it is in that region, and nothing; or the rung itself, and why none of its regions is admitted.
        """
        sites = admitted(rung, rules)
        if not sites:
            return rung, _refusal(rung, rules)
        if len(sites) == 1:
            return sites[0], ""
        now = self.clock.now()
        return min(sites, key=lambda site: self.policy.price(self.facts(site, request, now))), ""

    def facts(self, site: ModelRung, request: Request, at: datetime) -> SiteFacts:
        """What one attempt at a request is expected to cost in a region, in the hour of a moment."""
        prompt = site.counter.prompt(request)
        reply = request.max_output_tokens or site.default_output
        seconds = Timings(total_s=site.latency_s or 0.0)
        energy = site.profile.estimate(CallFacts(TokenUsage(prompt, reply), seconds))
        place = Place(site.region, zone=site.zone)
        grams = emissions(energy, place, at, carbon=self.carbon).location.mean
        usd = _provider_usd(site, request)
        power = None if self.power is None else power_cost(energy, place, at, price=self.power)
        if power is not None:
            usd += power.mean / NANO
        return SiteFacts(site.site, usd, grams, site.latency_s)

    async def wait(
        self, rungs: Sequence[Rung], request: Request, rules: Residency, until: datetime, longest_s: float | None
    ) -> float:
        """Wait for a better hour, if there is one from which the call can still end in time.

        Args:
            rungs: the cascade's.
            request: what will be asked.
            rules: where it may be served.
            until: when the reply must be there.
            longest_s: seconds that the budget has left; None when it has no limit of time.

        Returns:
            Seconds that were waited.
        """
        now = self.clock.now()
        first = next((rung for rung in rungs if isinstance(rung, ModelRung) and admitted(rung, rules)), None)
        if first is None:
            return 0.0
        sites = admitted(first, rules)
        latest = until if longest_s is None else min(until, now + timedelta(seconds=max(longest_s, 0.0)))
        latest -= timedelta(seconds=max(site.timeout_s for site in sites))
        at = self.hour.when(now, latest, lambda moment: self._price(sites, request, moment))
        if at <= now:
            return 0.0
        await self.clock.sleep_until(at)
        return (self.clock.now() - now).total_seconds()

    def _price(self, sites: Sequence[ModelRung], request: Request, at: datetime) -> float | None:
        """What the hour itself decides: the least price over the regions, less what the cheapest of them always costs.

        Regions whose hour is not known are left out: an average of a year says nothing of an hour.
        """
        known = [site for site in sites if self._knows(Place(site.region, zone=site.zone), at)]
        if not known:
            return None
        always = min(_provider_usd(site, request) for site in sites)
        return min(self.policy.price(self.facts(site, request, at)) for site in known) - always

    def _knows(self, place: Place, at: datetime) -> bool:
        return any(table is not None and table.at(place, at) is not None for table in (self.carbon, self.power))


def residency(*rules: Collection[str] | None) -> Residency:
    """Rules of several levels, each of which must admit a region; those that say nothing are left out.

    Raises:
        UsageError: a rule is text instead of a collection, or has no tag.
    """
    said = [rule for rule in rules if rule is not None]
    for rule in said:
        if isinstance(rule, str) or not all(rule):
            raise UsageError(f'A residency rule is a set of tags, as in {{"eu"}}, not {rule!r}.')
    return tuple(frozenset(rule) for rule in said if rule)


def admitted(rung: ModelRung, rules: Residency) -> tuple[ModelRung, ...]:
    """The regions of a rung that every rule admits, by one of its tags; what runs in this process goes nowhere."""
    sites = rung.sites or (rung,)
    return tuple(site for site in sites if site.backend.in_process or all(site.residency & rule for rule in rules))


def deadline(until: datetime | timedelta | float, now: datetime) -> datetime:
    """A deadline as a moment.

    Args:
        until: a moment with its zone, or how long from now, in seconds.
        now: the present.

    Raises:
        UsageError: the moment has no zone, or the wait is not a number.
    """
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise UsageError(f"The time {until.isoformat()} has no zone. Give one, as in datetime.now(UTC).")
        return until
    wait = until if isinstance(until, timedelta) else None
    try:
        return now + (wait if wait is not None else timedelta(seconds=float(until)))  # type: ignore[arg-type]
    except (ValueError, OverflowError) as error:
        raise UsageError(f"A call cannot wait {until!r} seconds. Give a number, or a moment.") from error


def _provider_usd(site: ModelRung, request: Request) -> float:
    """The most that the provider asks for one attempt."""
    reply = request.max_output_tokens or site.default_output
    return site.price.ceiling(site.counter.prompt(request), reply) / NANO


def _refusal(rung: ModelRung, rules: Residency) -> str:
    wanted = " and ".join(" or ".join(sorted(rule)) for rule in rules)
    sites = ", ".join(
        f"{site.site or 'its server'} ({', '.join(sorted(site.residency)) or 'no tag'})"
        for site in rung.sites or (rung,)
    )
    return f"residency in {wanted} admits none of its regions: {sites}"
