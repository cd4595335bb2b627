"""Access: whose request this is, and whether they may. Imports keys, pace, problems, FastAPI.

Without any key the server trusts whoever reaches it, which is why it then listens on this machine alone; a page in a
browser reaches it as well, so what a browser sends on behalf of another site is refused.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers

from agentflow.server.keys import SCOPES, Key, Keys, Scope
from agentflow.server.pace import Pace
from agentflow.server.problems import FORBIDDEN, TOO_MANY, UNAUTHENTICATED, Problem

# How long a key that was seen to be good is believed, and so how long one that was revoked still opens.
TRUSTED_S: Final = 2.0
_REMEMBERED: Final = 1_000
# What proxies add: who called them may be anybody.
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``tenant`` is None for whoever sits at this machine: they see all jobs."""

    name: str
    tenant: str | None
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether this is allowed; ``admin`` allows everything."""
        return scope in self.scopes or "admin" in self.scopes


_LOCAL: Final = Caller("local", None, frozenset(SCOPES))


class Door:
    """Admits requests.

    Args:
        keys: the keys there are.
        pace: counts their requests.
        requests_per_minute: of a key that does not say otherwise.
        open: whether requests without a key are admitted while no key was ever made.
    """

    def __init__(self, keys: Keys, pace: Pace, requests_per_minute: int, *, open: bool) -> None:
        self._keys = keys
        self._per_minute = requests_per_minute
        self._open = open
        self._pace = pace
        self._known: dict[str, tuple[float, Key]] = {}

    async def admit(self, token: str | None, headers: Headers, scope: Scope) -> Caller:
        """Who calls, if they may.

        Raises:
            Problem: there is no good key, it does not allow this, or it was used too often.
            JobStoreError: the keys cannot be read, or their requests not counted.
        """
        key = await self.recognise(token)
        if key is None:
            _refuse_other_sites(headers)
            return _LOCAL
        caller = Caller(key.name, key.tenant, key.scopes)
        wait_s = await self._pace.wait_s(key.id, key.requests_per_minute or self._per_minute)
        if wait_s > 0.0:
            raise Problem(TOO_MANY, f"The key '{key.name}' may ask again in {wait_s:.1f} s.", wait_s)
        if not caller.may(scope):
            held = ", ".join(sorted(key.scopes))
            raise Problem(FORBIDDEN, f"This needs the scope '{scope}'; the key '{key.name}' has {held}.")
        return caller

    async def recognise(self, token: str | None) -> Key | None:
        """The key of this token; None where none is needed, because none was ever made.

        Raises:
            Problem: there is no good key.
            JobStoreError: the keys cannot be read.
        """
        # OpenAI's clients always send a key; before there is one, whatever they send will do.
        if self._open and not await self._keys.any():
            return None
        # From then on one is needed for good: whether there is any need not be asked again.
        self._open = False
        key = None if token is None else await self._find(token)
        if key is None:
            what = "The key is unknown, expired or revoked." if token is not None else "No key was given."
            raise Problem(
                UNAUTHENTICATED, f"{what} Send one as 'Authorization: Bearer af_...'.",
                headers={"WWW-Authenticate": 'Bearer realm="agentflow"'},
            )  # fmt: skip
        return key

    async def _find(self, token: str) -> Key | None:
        now = time.monotonic()
        seen = self._known.get(token)
        if seen is not None and now < seen[0]:
            return seen[1]
        key = await self._keys.find(token)
        self._known.pop(token, None)
        if key is not None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[token] = (now + TRUSTED_S, key)
        return key


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, and reached from nowhere else."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _refuse_other_sites(headers: Headers) -> None:
    """Refuse what a browser sends for a page of another site, also one whose name was made to lead here."""
    if any(name in headers for name in _FORWARDED):
        raise Problem(
            FORBIDDEN, "Without keys this server answers only programs of its own machine, and this came through a "
            "proxy. Make a key with: agentflow keys create.",
        )  # fmt: skip
    host = headers.get("host", "").rsplit(":", 1)[0] if not headers.get("host", "").endswith("]") else headers["host"]
    origin = headers.get("origin")
    foreign = origin is not None and origin.split("://", 1)[-1] != headers.get("host")
    if not is_loopback(host) or foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Problem(
            FORBIDDEN, "Without keys this server answers only programs of its own machine, not pages of other sites. "
            "Make a key with: agentflow keys create.",
        )  # fmt: skip


_bearer = HTTPBearer(auto_error=False, description="A key made with `agentflow keys create`.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def _submits(request: Request, _: Credentials) -> Caller:
    return await _admitted(request, "submit")


async def _reads(request: Request, _: Credentials) -> Caller:
    return await _admitted(request, "read")


async def _administers(request: Request, _: Credentials) -> Caller:
    return await _admitted(request, "admin")


Submitter = Annotated[Caller, Depends(_submits)]
"""A parameter of this type is whoever calls, and may spend."""
Reader = Annotated[Caller, Depends(_reads)]
"""A parameter of this type is whoever calls, and may look."""
Admin = Annotated[Caller, Depends(_administers)]
"""A parameter of this type is whoever calls, and may see the server's own figures."""
_DEPENDENCIES: Final[dict[Scope, Any]] = {"submit": _submits, "read": _reads, "admin": _administers}


class AdmittingRoute(APIRoute):
    """A route that lets a request in before its body is read: who has no key makes the server keep nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What serves a request of this route."""
        serve = super().get_route_handler()
        asked = {one.call for one in self.dependant.dependencies}
        wanted: Scope | None = next((scope for scope in SCOPES if _DEPENDENCIES[scope] in asked), None)
        if wanted is None:
            return serve

        async def admitting(request: Request) -> Response:
            await _admitted(request, wanted)
            return await serve(request)

        return admitting


async def _admitted(request: Request, scope: Scope) -> Caller:
    """Who calls, if they may; asked once for each request."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:
        door: Door = request.app.state.server.door
        caller = await door.admit(await _token(request), request.headers, scope)
        request.state.caller = caller
    return caller


async def check_again(request: Request) -> None:
    """Refuse to go on with a response that has begun once its key is good no more.

    Raises:
        Problem: it is not.
        JobStoreError: the keys cannot be read.
    """
    door: Door = request.app.state.server.door
    await door.recognise(await _token(request))


async def _token(request: Request) -> str | None:
    given = await _bearer(request)
    return None if given is None else given.credentials
