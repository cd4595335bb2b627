"""Asking the cascade for a client: whose budget it is, and under which limits. Imports runtime, targets, state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Final

from agentflow.budget.meter import Meter
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.checks import Check
from agentflow.cascade.reply import Reply
from agentflow.chain import Chain
from agentflow.messages import Request
from agentflow.runtime import budget_of
from agentflow.server.access import Caller
from agentflow.server.openai.parameters import Extension, checks_of
from agentflow.server.openai.pictures import Pictures, fetch_pictures
from agentflow.server.openai.targets import target
from agentflow.server.state import Server

# Whoever sits at this machine: without limits of its own, but in the ledger all the same.
_LOCAL: Final = "local"
_AHEAD: Final = 64


@dataclass(frozen=True, slots=True)
class Ask:
    """One question of a client.

    Args:
        caller: who pays.
        name: what the chain is called in reports.
        model: the cascade or model, by its name.
        request: what is asked.
        extension: what the client said in our own words.
        times: how many replies are wanted, each a call of its own.
    """

    caller: Caller
    name: str
    model: str
    request: Request
    extension: Extension
    times: int = 1

    async def chain(self, server: Server) -> Chain:
        """A chain of the caller's, under the request's limits and all that stand above it.

        Raises:
            UnknownModel: there is no such cascade or model.
            UnpricedModel, UnprofiledModel: it cannot be metered.
            LedgerError: the ledger cannot be read.
        """
        cascade = target(server.runtime, self.model)
        return await chain_of(server, self.caller, self.name, cascade, self.extension)

    @property
    def checks(self) -> tuple[Check, ...]:
        """The judges of each reply."""
        return checks_of(self.request)

    async def whole(self, chain: Chain) -> list[Reply[str]]:
        """The replies, side by side; if one cannot be had, none is."""
        if self.times == 1:
            return [await chain.call(self.request, name=self.name, checks=self.checks)]
        try:
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(chain.call(self._numbered(place), name=self.name, checks=self.checks))
                    for place in range(self.times)
                ]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return [call.result() for call in calls]

    async def pieces(self, chain: Chain) -> AsyncGenerator[tuple[int, str | Reply[str]]]:
        """The text of each reply as it comes, and then the reply, each with the reply's number.

        A reply that must be judged first comes in one piece.
        """
        if self.times == 1:
            async for piece in self._one(chain, 0):
                yield 0, piece
            return
        # Bounded: a client that reads slowly slows the models' replies down, and fills no memory.
        queue: asyncio.Queue[tuple[int, str | Reply[str]]] = asyncio.Queue(_AHEAD)

        async def pump(place: int) -> None:
            async for piece in self._one(chain, place):
                await queue.put((place, piece))

        missing = self.times
        try:
            async with asyncio.TaskGroup() as group:
                for place in range(self.times):
                    group.create_task(pump(place))
                while missing:
                    place, piece = await queue.get()
                    missing -= not isinstance(piece, str)
                    yield place, piece
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _one(self, chain: Chain, place: int) -> AsyncGenerator[str | Reply[str]]:
        request = self._numbered(place)
        if self.checks:
            reply = await chain.call(request, name=self.name, checks=self.checks)
            yield reply.text
        else:
            async with chain.stream(request, name=self.name) as stream:
                async for text in stream:
                    yield text
            reply = stream.reply
        yield reply

    def _numbered(self, place: int) -> Request:
        """The request of one of several replies: with one seed for all, they would all be the same."""
        seed = self.request.seed
        return self.request if seed is None or not place else replace(self.request, seed=seed + place)


async def chain_of(server: Server, caller: Caller, name: str, cascade: Cascade, extension: Extension) -> Chain:
    """A chain of the caller's, under the request's limits and all that stand above it.

    Raises:
        UnprofiledModel: it cannot be metered.
        LedgerError: the ledger cannot be read.
    """
    runtime = server.runtime
    parent = server.local if caller.tenant is None else await runtime.tenant(caller.tenant)
    budget = extension.limits(budget_of(runtime.settings.budget))
    return runtime.chain(name, parent=parent, budget=budget, cascade=cascade)


async def pictures_for(server: Server, addresses: list[str]) -> Pictures:
    """Fetch the pictures of a request, within the server's bounds.

    Raises:
        UsageError: one cannot be had; see ``fetch_pictures``.
    """
    bounds = server.settings.server
    return await fetch_pictures(
        addresses, most_bytes=int(bounds.max_image_mb * 1_000_000), allow_private=bounds.allow_private
    )


def local_tenant() -> Meter:
    """The node of requests without a key."""
    return Meter(_LOCAL, kind="tenant")
