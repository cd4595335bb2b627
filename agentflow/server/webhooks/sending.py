"""One attempt at a webhook: signed as Standard Webhooks says, to public addresses alone, no redirects followed.

Imports aiohttp, standardwebhooks and the guards of sources.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import aiohttp
from yarl import URL

from agentflow.errors import FetchRefused
from agentflow.research.sources.addresses import PublicResolver, check_literal, guarded_socket

_TIMEOUT_S: Final = 10.0
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way.

    ``id`` is the same at every attempt, so that a receiver can tell a repetition. Each of ``secrets`` signs it: a
    receiver that knows one of them knows whom it is from.
    """

    id: str
    url: str
    body: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt. ``hopeless``: no later one will do better."""

    taken: bool
    said: str
    hopeless: bool = False


async def send(message: Message, *, allow_private: bool) -> Answer:
    """Send a message once; any answer of 200 to 299 within ten seconds is its being taken. Never raises."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await _send(message, allow_private=allow_private)
    except TimeoutError:
        return Answer(False, f"no answer within {_TIMEOUT_S:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        refused = _refusal(error)
        if refused is not None:
            return Answer(False, str(refused)[:_SHOWN], hopeless=True)
        return Answer(False, type(error).__name__)
    except FetchRefused as error:
        return Answer(False, str(error)[:_SHOWN], hopeless=True)


async def _send(message: Message, *, allow_private: bool) -> Answer:
    from standardwebhooks import Webhook

    now = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "user-agent": "agentflow-webhooks/1",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(one).sign(message.id, now, message.body) for one in message.secrets),
    }
    connector = aiohttp.TCPConnector(
        resolver=PublicResolver(allow_private=allow_private), use_dns_cache=False, force_close=True,
        socket_factory=guarded_socket(allow_private=allow_private),
    )  # fmt: skip
    async with (
        aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        address = URL(message.url)
        check_literal(address.host or "", allow_private=allow_private)
        async with session.post(
            address, data=message.body.encode(), headers=headers, allow_redirects=False
        ) as response:
            # 410 is a receiver's way to say that it wants no more.
            taken = 200 <= response.status < 300
            return Answer(taken, f"HTTP {response.status}", hopeless=response.status == 410)


def _refusal(error: BaseException) -> FetchRefused | None:
    """The refusal of an address behind a failed connection."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, FetchRefused):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
