"""Pictures that clients send: inside a ``data:`` address, or at one of http(s), fetched from public addresses alone.

What was fetched is kept as a ``data:`` address, so that what is stored is what a model saw. Imports images, and the
guards of sources.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Literal
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from agentflow.errors import FetchRefused, SourceError, UsageError
from agentflow.images import image_of
from agentflow.messages import Image
from agentflow.research.sources.addresses import PublicResolver, check_literal, guarded_socket

Pictures = Mapping[str, str]
"""Pictures that were fetched: their ``data:`` addresses, by where they were."""
MOST_PICTURES: Final = 50
_TIMEOUT_S: Final = 15.0
_AT_ONCE: Final = 4
_REDIRECTS: Final = 3
_BLOCK: Final = 65_536
_SHOWN: Final = 100


def picture_of(address: str, detail: Literal["auto", "low", "high"], pictures: Pictures) -> Image:
    """The picture behind an address.

    Args:
        address: a ``data:`` address, or one of ``pictures``.
        detail: how closely a model is asked to look.
        pictures: those that were fetched.

    Raises:
        UsageError: it is neither, or holds no picture that can be read.
    """
    held = pictures.get(address, address)
    head, comma, data = held.partition(",")
    if not head.lower().startswith("data:image/") or not head.lower().endswith(";base64") or not comma:
        raise UsageError(
            f"image_url: '{_shown(address)}' is no picture's address. Send data:image/png;base64,... or one of https."
        )
    try:
        found = image_of(base64.b64decode(data, validate=True), name="image_url: the picture")
    except binascii.Error as error:
        raise UsageError("image_url: what follows 'base64,' is not base64. Encode the picture's bytes.") from error
    return replace(found, detail=detail)


async def fetch_pictures(addresses: Iterable[str], *, most_bytes: int, allow_private: bool) -> Pictures:
    """Fetch the pictures that are not inside their addresses.

    Args:
        addresses: of all pictures of a request.
        most_bytes: of all of them together.
        allow_private: fetch from private addresses too.

    Raises:
        FetchRefused: one leads to an address that is not visited.
        SourceError: one cannot be fetched, is too large, or is no picture.
        UsageError: there are too many.
    """
    all_ = list(addresses)
    if len(all_) > MOST_PICTURES:
        raise UsageError(f"There are {len(all_)} pictures; the most of one request is {MOST_PICTURES}. Send fewer.")
    distant = [one for one in dict.fromkeys(all_) if one.lower().startswith(("http://", "https://"))]
    if not distant:
        return {}
    found: dict[str, str] = {}
    left = most_bytes
    turn = asyncio.Semaphore(_AT_ONCE)

    async def fetch(address: str) -> None:
        nonlocal left
        async with turn:
            data = await _fetch(address, left, allow_private=allow_private)
        left -= len(data)
        if left < 0:
            raise SourceError(_too_large(address, most_bytes))
        image = image_of(data, name=f"image_url: {_shown(address)}")
        found[address] = f"data:{image.media_type};base64,{base64.b64encode(data).decode('ascii')}"

    try:
        async with asyncio.TaskGroup() as group:
            for address in distant:
                group.create_task(fetch(address))
    except* UsageError as errors:
        raise errors.exceptions[0] from None
    return found


async def _fetch(address: str, most: int, *, allow_private: bool) -> bytes:
    connector = aiohttp.TCPConnector(
        resolver=PublicResolver(allow_private=allow_private), use_dns_cache=False, force_close=True,
        socket_factory=guarded_socket(allow_private=allow_private),
    )  # fmt: skip
    # Proxies, netrc and cookies of the environment would lead a fetch elsewhere, or give something away.
    session = aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
    where = f"image_url: {_shown(address)}"
    try:
        async with session, asyncio.timeout(_TIMEOUT_S):
            return await _followed(session, address, most, allow_private=allow_private)
    except FetchRefused as error:
        raise FetchRefused(f"{where} {error}") from error
    except SourceError as error:
        raise SourceError(f"{where} {error}") from error
    except TimeoutError as error:
        raise SourceError(f"{where} was not there within {_TIMEOUT_S:g} s. Send the picture itself.") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        refused = _refusal(error)
        if refused is not None:
            raise FetchRefused(f"{where} {refused}") from error
        raise SourceError(f"{where} cannot be fetched: {type(error).__name__}. Send the picture itself.") from error


async def _followed(session: aiohttp.ClientSession, address: str, most: int, *, allow_private: bool) -> bytes:
    for _ in range(_REDIRECTS + 1):
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise FetchRefused("leads to what is no plain http(s) address.")
        check_literal(parts.hostname, allow_private=allow_private)
        async with session.get(URL(address), allow_redirects=False) as response:
            target = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and target:
                address = urljoin(address, target)
                continue
            if response.status != 200:
                raise SourceError(f"answers HTTP {response.status}. Send the picture itself.")
            return await _body(response, most)
    raise SourceError(f"redirects more than {_REDIRECTS} times. Send the picture itself.")


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    # Decompressed bytes are counted as they come: neither an endless body nor a bomb is ever held whole.
    async for block in response.content.iter_chunked(_BLOCK):
        body += block
        if len(body) > most:
            raise SourceError(f"and the pictures before it have more than {most:,} bytes. Send smaller ones.")
    return bytes(body)


def _too_large(address: str, most: int) -> str:
    return f"image_url: {_shown(address)} and the pictures before it have more than {most:,} bytes. Send smaller ones."


def _shown(address: str) -> str:
    """An address for people, without what may be secret in it."""
    if not address.lower().startswith(("http://", "https://")):
        return f"{address[:20]}..." if len(address) > 20 else address
    try:
        parts = urlsplit(address)
    except ValueError:
        return "an address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:_SHOWN]


def _refusal(error: BaseException) -> FetchRefused | None:
    """The refusal of an address behind a failed connection."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, FetchRefused):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
