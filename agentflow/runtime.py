"""Runtime: settings turned into rungs, cascades, prices and joules; opens chains. Imports chain and all below.

Backends are made when a cascade first needs them and closed with the runtime; building one contacts nobody.
"""

from __future__ import annotations

import contextlib
import secrets
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentflow.backends import make_backend
from agentflow.backends.base import Backend
from agentflow.budget.admission import Admission
from agentflow.budget.budget import Budget, Period
from agentflow.budget.ledger import Labels, Ledger, MemoryLedger, open_ledger
from agentflow.budget.meter import Meter
from agentflow.budget.price_layers import given
from agentflow.budget.prices import FREE_LOCAL, Price, PriceBook
from agentflow.budget.spend import Quote
from agentflow.cascade.cache import ReplyCache
from agentflow.cascade.calibration import Calibration
from agentflow.cascade.capabilities import known_capabilities, known_context
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.concurrency import ConcurrencyLimits
from agentflow.cascade.configured import estimator_of, policy_of, router_of
from agentflow.cascade.escalations import EscalationLog
from agentflow.cascade.health import BreakerLimits
from agentflow.cascade.hedging import HedgeLimits
from agentflow.cascade.lane import Lane, LaneLimits, LaneState
from agentflow.cascade.outcomes import OutcomeFile
from agentflow.cascade.placement import Placement, Residency, ShadowPrices, residency
from agentflow.cascade.policy import Policy
from agentflow.cascade.rates import RateLimits
from agentflow.cascade.reply_file import ReplyFile
from agentflow.cascade.rung import Answer, CodeRung, ModelRung, Rung
from agentflow.cascade.services import Services
from agentflow.chain import CallRecord, Chain
from agentflow.config import CODE, CascadeSettings, LaneSettings, LimitSettings, ModelSettings, Settings, TenantSettings
from agentflow.config.placement import PlacementSettings
from agentflow.energy.estimate import EnergyProfile
from agentflow.energy.grid import HourlyTable
from agentflow.energy.profiles import CpuProfile, profile_for
from agentflow.energy.shared_meter import SharedMeter
from agentflow.errors import UnknownModel, UnprofiledModel, UsageError
from agentflow.tokens import TokenCounter

if TYPE_CHECKING:
    from agentflow.backends.cassette import Cassette


class Runtime:
    """What every chain of this process shares.

    Args:
        settings: the configuration.
        ledger: where attempts are recorded; when None, where the configuration says.
        backends: what to ask instead of the backends that the settings describe, by the names of models.
    """

    def __init__(
        self, settings: Settings, ledger: Ledger | None = None, *, backends: Mapping[str, Backend] | None = None
    ) -> None:
        self.settings = settings
        self._given_backends = dict(backends or {})
        self._cassette: Cassette | None = None
        self.cpu: EnergyProfile = CpuProfile()
        self.prices = PriceBook()
        self._given = ledger
        self._memory = MemoryLedger()
        self._durable: Ledger | None = None
        self.other_tenants: Callable[[str], Awaitable[TenantSettings | None]] | None = None
        """Where limits of tenants are that the configuration does not have."""
        self._tenants: dict[str, Meter] = {}
        self._rungs: dict[str, ModelRung] = {}
        self._alone: dict[str, ModelRung] = {}
        self._backends: dict[str, Backend] = {}
        self._machine: SharedMeter | None = None
        self._calibration: Calibration | None = None
        self._policies: dict[tuple[str, tuple[str, ...]], Policy] = {}
        self.embedding: CodeRung | None = None
        self._also_closed: list[Callable[[], Awaitable[None]]] = []
        self._services: Services | None = None
        self._rules: weakref.WeakKeyDictionary[Meter, Collection[str] | None] = weakref.WeakKeyDictionary()
        # Of jobs whose calls are recorded by another way than the runtime\'s own.
        self._ledgers: weakref.WeakKeyDictionary[Meter, Ledger] = weakref.WeakKeyDictionary()

    @property
    def ledger(self) -> Ledger:
        """The ledger of jobs and tenants; it is opened when it first records."""
        if self._given is not None:
            return self._given
        if self._durable is None:
            self._durable = open_ledger(self.settings.ledger)
        return self._durable

    @property
    def services(self) -> Services:
        """What all chains share; files are made when something is first kept in them."""
        if self._services is None:
            reuse, kept = self.settings.reuse, self.settings.distillation
            file = ReplyFile(reuse.path, int(reuse.max_mb * 1_000_000))
            self._services = Services(
                embedding=self.embedding,
                replies=ReplyCache(file, share_tenants=reuse.share_tenants),
                escalations=EscalationLog(kept.path, kept.days) if kept.keep_prompts else None,
                placement=_placement(self.settings.placement),
            )
        return self._services

    def chain(
        self,
        name: str,
        *,
        parent: Meter | None = None,
        budget: Budget | None = None,
        share: float | None = None,
        seconds: float | None = None,
        cascade: str | Cascade = "default",
        observe: Callable[[CallRecord], None] | None = None,
        agent: str = "",
        admission: Admission | None = None,
        final: bool = False,
        residency: Collection[str] | None = None,
    ) -> Chain:
        """Open a chain, under a job's or tenant's node or as a tree of its own.

        Args:
            name: its name in reports.
            parent: the node above it.
            budget: limits of its own.
            share: instead of a budget, the part (0 to 1] of what the parent has left that is set aside for it.
            seconds: with ``share``, the wall clock it may take.
            cascade: which cascade serves it, by its name or itself.
            observe: told of every attempt.
            agent: whose task it is, for reports.
            admission: how much of a reply is held; the worst case when None.
            final: its calls may use what budgets keep for a landing.
            residency: its calls are served in regions with one of these tags, and by the rules of its job, its tenant
                and the configuration as well.

        Raises:
            UnpricedModel: a model of the cascade has no known price.
            UnprofiledModel: joules are limited, and nothing is known of a model's hardware.
        """
        rungs = self.cascade(cascade) if isinstance(cascade, str) else cascade
        above = {} if parent is None else {node.kind: node.name for node in _upwards(parent)}
        path = name if parent is None else f"{parent.path}/{name}"
        # A chain outside a job is no repetition of an earlier one of its name: its calls and account are its own.
        key = None if "job" in above else f"{path}-{secrets.token_hex(8)}"
        if parent is None:
            meter, ledger = Meter(name, budget, recorded_as=key), self._bare_ledger
        else:
            meter = parent.child(name, budget, share=share, seconds=seconds, final=final, recorded_as=key)
            ledger = next((self._ledgers[node] for node in _upwards(parent) if node in self._ledgers), self.ledger)
        self.check(rungs, meter)
        labels = Labels(tenant=above.get("tenant", ""), job=above.get("job", ""), agent=agent)
        return Chain(
            meter,
            rungs,
            ledger,
            observe,
            key=key,
            labels=labels,
            admission=admission,
            final=final,
            outcomes=OutcomeFile(self.settings.stores.outcomes),
            services=self.services,
            residency=self._residency(parent, residency),
        )

    async def job(
        self,
        name: str,
        budget: Budget | None = None,
        *,
        tenant: str | None = None,
        residency: Collection[str] | None = None,
        ledger: Ledger | None = None,
    ) -> Meter:
        """Open a job's node: what an earlier process spent under it counts against its budget.

        Args:
            name: the job's id.
            budget: its limits.
            tenant: whose job it is.
            residency: all its calls are served in regions with one of these tags.
            ledger: what records its calls: a view of the runtime's own, which serves when None.

        Raises:
            UsageError: the configuration has no such tenant.
            LedgerError: the ledger cannot be read.
        """
        above = None if tenant is None else await self.tenant(tenant)
        job = Meter(name, budget, kind="job") if above is None else above.child(name, budget, kind="job")
        self._rules[job] = residency
        if ledger is not None:
            self._ledgers[job] = ledger
        # A job that a dead process left in the middle of a call goes on with that call charged.
        await self.ledger.recover()
        known = await self.ledger.account(job.path)
        if known is not None:
            job.carry({job.path: known.account.spent}, known.elapsed_s)
            if known.account.limits != job.limits:
                await self.ledger.set_limits(job.path, job.limits)
        return job

    def _residency(self, parent: Meter | None, own: Collection[str] | None) -> Residency:
        """A chain's rule, and those of all that stands above it."""
        above = [self._rules.get(node) for node in (() if parent is None else _upwards(parent))]
        return residency(self.settings.placement.residency, own, *above)

    async def tenant(self, name: str) -> Meter:
        """The node of a tenant, whose limits hold over all its jobs and chains, in every process of the ledger.

        Raises:
            UsageError: the configuration has no such tenant.
            LedgerError: the ledger cannot be read.
        """
        if name not in self._tenants:
            limits = self.settings.tenants.get(name)
            if limits is None and self.other_tenants is not None:
                limits = await self.other_tenants(name)
            if limits is None:
                names = ", ".join(self.settings.tenants) or "none"
                raise UsageError(
                    f"No tenant is called '{name}'; there are: {names}. Add [tenants.{name}] to agentflow.toml."
                )
            periods: tuple[tuple[Period | None, LimitSettings | None], ...] = (
                ("hour", limits.hour), ("day", limits.day), ("week", limits.week), ("month", limits.month),
                (None, limits.total),
            )  # fmt: skip
            budgets = [budget_of(table, per) for per, table in periods if table is not None]
            node = Meter(name, budgets, kind="tenant")
            self._rules[node] = limits.residency
            for id, configured in node.recorded_limits:
                # The configuration may have changed since the account was made.
                known = await self.ledger.account(id)
                if known is not None and known.account.limits != configured:
                    await self.ledger.set_limits(id, configured)
            self._tenants.setdefault(name, node)
        node = self._tenants[name]
        found = [await self.ledger.account(id) for id, _ in node.recorded_limits]
        node.carry({state.account.id: state.account.spent for state in found if state is not None})
        return node

    @property
    def _bare_ledger(self) -> Ledger:
        """The ledger of chains outside jobs: in memory, unless one was chosen for everything."""
        return self._memory if self._given is None and self.settings.ledger.kind == "auto" else self.ledger

    def check(self, cascade: str | Cascade, meter: Meter) -> None:
        """Refuse a cascade whose models cannot be metered in every currency that is limited at this node.

        Raises:
            UnknownModel, UnpricedModel: a model is not configured, or has no known price.
            UnprofiledModel: joules or grams of CO2 equivalent are limited, and nothing is known of its hardware.
        """
        asked = [
            rung
            for rung in (self.cascade(cascade) if isinstance(cascade, str) else cascade).rungs
            if isinstance(rung, ModelRung)
        ]
        asked += [rung.hedge_with for rung in asked if rung.hedge_with is not None]
        guessed = next((rung.name for rung in asked if not rung.profiled), None)
        if guessed is None:
            return
        room = meter.room()
        if room.microjoules is not None or room.micrograms is not None:
            raise UnprofiledModel(
                f"Joules or grams of CO2e are limited, but nothing is known of the hardware behind '{guessed}'. "
                f'Say it in models.{guessed}.energy; {{ kind = "remote" }} there accepts a wide prior.'
            )

    def cascade(self, name: str, code: CodeRung | None = None, *, model_rungs: int | None = None) -> Cascade:
        """The cascade of this name, with ``code`` as its code rung; without one, its model rungs alone.

        With ``model_rungs``, only so many of its models from the first on; a cascade that is pinned to one keeps that.
        """
        chosen = self.settings.cascade(name)
        rungs: list[Rung] = []
        for rung in chosen.climbed(model_rungs):
            if rung != CODE:
                rungs.append(self.rung(rung))
            elif code is not None:
                rungs.append(code)
        return Cascade(name, tuple(rungs), self._policy(name, chosen, rungs), chosen.timeout_s)

    def _policy(self, name: str, chosen: CascadeSettings, rungs: Sequence[Rung]) -> Policy:
        """A cascade's policy, with what was learned of its rungs; learned once, for reading outcomes takes time."""
        named = (name, tuple(rung.name for rung in rungs))
        if named not in self._policies:
            if chosen.calibrate and self._calibration is None:
                self._calibration = Calibration.load(self.settings.stores.calibration)
            outcomes = OutcomeFile(self.settings.stores.outcomes)
            estimator = estimator_of(chosen, rungs, outcomes.read())
            router = router_of(chosen, rungs, outcomes.read())
            calibration = self._calibration if chosen.calibrate else None
            self._policies[named] = policy_of(chosen, self.rung, calibration, estimator, router)
        return self._policies[named]

    def code(self, rung: CodeRung) -> Cascade:
        """A cascade of one code rung: for steps that no model serves."""
        return Cascade(rung.name, (rung,))

    def code_rung(
        self,
        name: str,
        function: Callable[..., Answer | Awaitable[Answer]],
        *,
        max_cpu_s: float = 0.5,
        threaded: bool = False,
        worst: Quote | None = None,
    ) -> CodeRung:
        """A code rung whose joules are this machine's CPU seconds; ``worst`` is what it may pay elsewhere, at most."""
        return CodeRung(name, function, self.cpu, max_cpu_s, threaded, worst or Quote())

    def rung(self, name: str) -> ModelRung:
        """The model rung of this name.

        Raises:
            UnknownModel: the configuration has no such model.
            UnpricedModel: it has no known price.
        """
        if name not in self._rungs:
            if name not in self.settings.models:
                known = ", ".join(self.settings.models) or "none"
                raise UnknownModel(
                    f"No model is called '{name}'; there are: {known}. Add [models.{name}] to agentflow.toml."
                )
            other = self.settings.models[name].hedge_with
            hedge_with = None if other is None else self._without_hedge(other)
            self._rungs[name] = replace(self._without_hedge(name), hedge_with=hedge_with)
        return self._rungs[name]

    @property
    def lanes(self) -> dict[str, LaneState]:
        """How every rung stands that was opened here: up or down, in flight, waiting, how quick."""
        return {name: rung.lane.state() for name, rung in self._alone.items()}

    def _without_hedge(self, name: str) -> ModelRung:
        """The rung before it knows whom to hedge with: two models may hedge with each other."""
        if name not in self._alone:
            self._alone[name] = self._build(name, self.settings.models[name])
        return self._alone[name]

    def _build(self, name: str, facts: ModelSettings) -> ModelRung:
        """The rung of a model; one with several regions stands for them all, and is the first of them itself."""
        sites = tuple([self._site(name, site, facts) for site in facts.regions])
        return replace(sites[0], site="", sites=sites) if sites else self._rung(name, facts)

    def _site(self, name: str, site: str, facts: ModelSettings) -> ModelRung:
        region = facts.regions[site]
        said = region.model_dump(include={"base_url", "model", "api_key_env", "region"})
        there: dict[str, Any] = {key: value for key, value in said.items() if value}
        if region.price is not None:
            there["price"] = region.price
        rung = self._rung(name, facts.model_copy(update=there), backend=f"{name}@{site}")
        return replace(
            rung, site=site, zone=region.zone, residency=frozenset(region.residency), latency_s=region.latency_s,
            served_by=_served_by(facts),
        )  # fmt: skip

    def _rung(self, name: str, facts: ModelSettings, backend: str = "") -> ModelRung:
        model = facts.model or name
        counter = TokenCounter.for_model(model)
        speaking = self._backends.get(backend or name)
        if speaking is None:
            speaking = self._backends[backend or name] = self._make_backend(name, facts, counter)
        return ModelRung(
            name=name,
            backend=speaking,
            model=model,
            price=self.price(name, facts),
            profile=profile_for(
                facts.energy, model=name, in_process=speaking.in_process, threads=facts.threads, served=model
            ),
            counter=counter,
            context=facts.context or known_context(facts.backend, model),
            default_output=facts.default_output,
            max_output=facts.max_output,
            timeout_s=facts.timeout_s,
            logprobs=facts.logprobs,
            profiled=facts.energy is not None or facts.backend != "openai",
            region=facts.region,
            serves=known_capabilities(facts.backend, model) if facts.serves is None else frozenset(facts.serves),
            served_by=_served_by(facts),
            residency=frozenset(facts.residency),
            lane=Lane(lane_limits(facts)),
        )

    def _make_backend(self, name: str, facts: ModelSettings, counter: TokenCounter) -> Backend:
        def make() -> Backend:
            return self._given_backends.get(name) or self._contacting(name, facts, counter)

        chosen = self.settings.cassette
        if chosen is None:
            return make()
        from agentflow.backends.cassette import on_cassette, open_cassette

        if self._cassette is None:
            self._cassette = open_cassette(chosen.path, chosen.mode)
        return on_cassette(self._cassette, chosen.mode, name, make, in_process=facts.backend == "llamacpp")

    def _contacting(self, name: str, facts: ModelSettings, counter: TokenCounter) -> Backend:
        backend = make_backend(name, facts, counter.usage)
        if not (facts.measure and backend.in_process):
            return backend
        from agentflow.backends.measured import MeasuredBackend
        from agentflow.energy.probes.ladder import survey

        if self._machine is None:
            counters = survey().counters
            self._machine = SharedMeter(counters)
        return MeasuredBackend(backend, self._machine, threads=facts.threads)

    def price(self, name: str, facts: ModelSettings) -> Price:
        """The price of a configured model: given, free because it runs in this process, or by the price book.

        Raises:
            UnpricedModel: none of these.
        """
        # A price is of its own table alone: another model may be called what this table is.
        if facts.price is not None:
            return given.price(facts.price)
        return FREE_LOCAL if facts.backend == "llamacpp" else self.prices.require(facts.model or name)

    def also_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have something closed with the runtime that was opened for it."""
        self._also_closed.append(close)

    async def aclose(self) -> None:
        """Close every backend that was opened, and the ledger if it was opened here."""
        backends, self._backends = list(self._backends.values()), {}
        self._rungs.clear()
        self._alone.clear()
        durable, self._durable = self._durable, None
        machine, self._machine = self._machine, None
        services, self._services = self._services, None
        if machine is not None:
            machine.close()
        async with contextlib.AsyncExitStack() as stack:
            if services is not None and services.replies is not None:
                stack.push_async_callback(services.replies.aclose)
            if durable is not None:
                stack.push_async_callback(durable.aclose)
            for backend in backends:
                stack.push_async_callback(backend.aclose)
            while self._also_closed:
                stack.push_async_callback(self._also_closed.pop())


def _placement(facts: PlacementSettings) -> Placement:
    """What decides between regions and hours; its tables are read now.

    Raises:
        ConfigError: a table cannot be read.
    """
    carbon = None if facts.carbon is None else HourlyTable.read(facts.carbon, unit=facts.carbon_unit)
    power = None if facts.power is None else HourlyTable.read(facts.power, unit=facts.power_unit)
    return Placement(ShadowPrices(facts.usd_per_kg_co2e, facts.usd_per_hour), carbon=carbon, power=power)


def _served_by(facts: ModelSettings) -> str:
    """What a model's replies depend on in its table: its server or file, and the bounds of a reply."""
    file = ""
    if facts.path is not None and facts.path.is_file():
        found = facts.path.stat()
        file = f"{facts.path.absolute()} {found.st_size} {found.st_mtime_ns}"
    bounds = f"{facts.context} {facts.default_output} {facts.max_output}"
    return f"{facts.backend} {facts.base_url or ''} {' '.join(facts.base_urls)} {file} {bounds}"


def lane_limits(facts: LaneSettings) -> LaneLimits:
    """Configured limits of a model's traffic."""
    return LaneLimits(
        breaker=BreakerLimits(**facts.breaker.model_dump()),
        concurrency=None if facts.concurrency is None else ConcurrencyLimits(**facts.concurrency.model_dump()),
        rates=RateLimits(facts.requests_per_minute, facts.tokens_per_minute),
        hedge=HedgeLimits(share=facts.hedge_share) if facts.hedge else None,
    )


def budget_of(limits: LimitSettings, per: Period | None = None) -> Budget:
    """Configured limits as a Budget."""
    return Budget(**limits.model_dump(), per=per)


def _upwards(meter: Meter) -> Iterator[Meter]:
    """A node and all above it."""
    node: Meter | None = meter
    while node is not None:
        yield node
        node = node.parent
