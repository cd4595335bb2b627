"""Asking the cascade for a client: whose budget it is, and under which limits. Imports runtime, targets, state."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from agentflow.budget.meter import Meter
from agentflow.cascade.checks import Check
from agentflow.cascade.reply import Reply
from agentflow.chain import Chain
from agentflow.messages import Request
from agentflow.runtime import budget_of
from agentflow.server.access import Caller
from agentflow.server.openai.messages import Extension, is_json
from agentflow.server.openai.targets import target
from agentflow.server.state import Server

# Whoever sits at this machine: without limits of its own, but in the ledger all the same.
_LOCAL: Final = "local"


@dataclass(frozen=True, slots=True)
class Ask:
    """One question of a client.

    Args:
        caller: who pays.
        name: what the chain is called in reports.
        model: the cascade or model, by its name.
        request: what is asked.
        extension: what the client said in our own words.
    """

    caller: Caller
    name: str
    model: str
    request: Request
    extension: Extension

    async def chain(self, server: Server) -> Chain:
        """A chain of the caller's, under the request's limits and all that stand above it.

        Raises:
            UnknownModel: there is no such cascade or model.
            UnpricedModel, UnprofiledModel: it cannot be metered.
            LedgerError: the ledger cannot be read.
        """
        runtime = server.runtime
        cascade = target(runtime, self.model)
        tenant = self.caller.tenant
        parent = server.local if tenant is None else await runtime.tenant(tenant)
        budget = self.extension.limits(budget_of(runtime.settings.budget))
        return runtime.chain(self.name, parent=parent, budget=budget, cascade=cascade)

    @property
    def checks(self) -> tuple[Check, ...]:
        """The judges of the reply: one that ought to be JSON is."""
        return () if self.request.schema is None else (is_json,)

    async def whole(self, chain: Chain) -> Reply[str]:
        """The reply in one piece."""
        return await chain.call(self.request, name=self.name, checks=self.checks)

    async def pieces(self, chain: Chain) -> AsyncGenerator[str | Reply[str]]:
        """The reply's text as it comes, and then the reply; in one piece where it must be judged first."""
        if self.checks:
            reply = await self.whole(chain)
            yield reply.text
        else:
            async with chain.stream(self.request, name=self.name) as stream:
                async for text in stream:
                    yield text
            reply = stream.reply
        yield reply


def local_tenant() -> Meter:
    """The node of requests without a key."""
    return Meter(_LOCAL, kind="tenant")
