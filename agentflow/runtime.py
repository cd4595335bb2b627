"""Runtime: settings turned into rungs, cascades, prices and joules; opens chains. Imports chain and all below.

Backends are made when a cascade first needs them and closed with the runtime; building one contacts nobody.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable

from agentflow.backends import make_backend
from agentflow.backends.base import Backend
from agentflow.budget.budget import Budget
from agentflow.budget.ledger import Ledger, MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import FREE_LOCAL, Price, PriceBook
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.policy import Policy
from agentflow.cascade.rung import Answer, CodeRung, ModelRung, Rung
from agentflow.chain import CallRecord, Chain
from agentflow.config import CODE, ModelSettings, PriceSettings, Settings
from agentflow.energy.estimate import EnergyProfile
from agentflow.energy.profiles import CpuProfile, profile_for
from agentflow.errors import UnknownModel
from agentflow.tokens import TokenCounter


class Runtime:
    """What every chain of this process shares.

    Args:
        settings: the configuration.
        ledger: where attempts are recorded; in memory when None.
    """

    def __init__(self, settings: Settings, ledger: Ledger | None = None) -> None:
        self.settings = settings
        self.ledger: Ledger = ledger or MemoryLedger()
        self.cpu: EnergyProfile = CpuProfile()
        self.prices = PriceBook()
        self._rungs: dict[str, ModelRung] = {}
        self._backends: dict[str, Backend] = {}

    def chain(
        self,
        name: str,
        *,
        parent: Meter | None = None,
        budget: Budget | None = None,
        share: float | None = None,
        cascade: str = "default",
        observe: Callable[[CallRecord], None] | None = None,
    ) -> Chain:
        """Open a chain, under a job's node or as a tree of its own.

        Args:
            name: its name in reports.
            parent: the node above it.
            budget: limits of its own.
            share: instead of a budget, the part (0 to 1] of the parent's limits it may use.
            cascade: which cascade serves it.
            observe: told of every attempt.

        Raises:
            UnpricedModel: a model of the cascade has no known price.
        """
        if parent is None:
            # A chain outside a job is no repetition of an earlier one of its name: its calls are its own.
            key = f"{name}-{secrets.token_hex(8)}"
            return Chain(Meter(name, budget), self.cascade(cascade), self.ledger, observe, key=key)
        return Chain(parent.child(name, budget, share=share), self.cascade(cascade), self.ledger, observe)

    def cascade(self, name: str, code: CodeRung | None = None) -> Cascade:
        """The cascade of this name, with ``code`` as its code rung; without one, its model rungs alone."""
        chosen = self.settings.cascade(name)
        rungs: list[Rung] = []
        for rung in chosen.rungs:
            if rung != CODE:
                rungs.append(self.rung(rung))
            elif code is not None:
                rungs.append(code)
        return Cascade(name, tuple(rungs), Policy(chosen.accept, chosen.repairs, chosen.min_output))

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
    ) -> CodeRung:
        """A code rung whose joules are this machine's CPU seconds."""
        return CodeRung(name, function, self.cpu, max_cpu_s, threaded)

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
            self._rungs[name] = self._build(name, self.settings.models[name])
        return self._rungs[name]

    def _build(self, name: str, facts: ModelSettings) -> ModelRung:
        model = facts.model or name
        counter = TokenCounter.for_model(model)
        backend = self._backends.setdefault(name, make_backend(name, facts, counter.usage))
        return ModelRung(
            name=name,
            backend=backend,
            model=model,
            price=self.price(name, facts),
            profile=profile_for(
                facts.energy, model=name, in_process=backend.in_process, threads=facts.threads, served=model
            ),
            counter=counter,
            context=facts.context,
            max_output=facts.max_output,
            timeout_s=facts.timeout_s,
            logprobs=facts.logprobs,
        )

    def price(self, name: str, facts: ModelSettings) -> Price:
        """The price of a configured model: given, free because it runs in this process, or by the price book.

        Raises:
            UnpricedModel: none of these.
        """
        # A price is of its own table alone: another model may be called what this table is.
        if facts.price is not None:
            return _given(facts.price)
        return FREE_LOCAL if facts.backend == "llamacpp" else self.prices.require(facts.model or name)

    async def aclose(self) -> None:
        """Close every backend that was opened."""
        backends, self._backends = list(self._backends.values()), {}
        self._rungs.clear()
        async with contextlib.AsyncExitStack() as stack:
            for backend in backends:
                stack.push_async_callback(backend.aclose)


def _given(price: PriceSettings) -> Price:
    return Price.per_million(
        price.input, price.output, price.cache_read, price.cache_write, source="agentflow.toml", date=""
    )
