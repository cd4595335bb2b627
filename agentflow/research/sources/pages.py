"""Web pages: fetched with bounds on address, domain, size, time and redirects. Every page is treated as hostile.

A redirect from https to http is followed like any other: nothing secret is sent, and what was read is stored. Imports
addresses, scope, parsing, source, errors.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import aiohttp

from agentflow.errors import FetchRefused, SourceError
from agentflow.research.sources.addresses import PublicResolver, check_literal, guarded_socket
from agentflow.research.sources.extract import DOCX
from agentflow.research.sources.parsing import Parsers
from agentflow.research.sources.scope import Scope
from agentflow.research.sources.source import MEGABYTE, Extracted, ReadLimits, SourceDate, printable

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_READABLE = ("text/", "application/json", "application/pdf", "application/xhtml", "application/xml", DOCX)
_HEADERS = {"User-Agent": "agentflow-research/0.1", "Accept": "text/html,application/pdf,text/*;q=0.9,*/*;q=0.1"}


@dataclass(frozen=True, slots=True)
class Page:
    """A fetched body before extraction. ``address`` is where the redirects ended, ``date`` what its server says."""

    address: str
    body: bytes
    media_type: str
    charset: str | None
    date: SourceDate | None = None


async def read_page(address: str, limits: ReadLimits, parsers: Parsers, scope: Scope) -> Extracted:
    """Fetch a page and get its text out.

    Raises:
        SourceError: it cannot be fetched or read; the message begins with the address.
        FetchRefused: its address, or one it redirects to, is not visited.
    """
    try:
        async with asyncio.timeout(limits.page_timeout_s):
            page = await _fetch(address, limits, scope)
        name = urlsplit(page.address).path
        async with parsers.slot():
            found = await parsers.extract(page.body, page.media_type, name, page.charset)
        return found if found.date is not None else replace(found, date=page.date)
    except FetchRefused as error:
        raise FetchRefused(f"{_shown(address)} {error}") from error
    except SourceError as error:
        raise SourceError(f"{_shown(address)} {error}") from error
    except TimeoutError as error:
        raise SourceError(f"{_shown(address)} did not answer within {limits.page_timeout_s:g} s.") from error
    except aiohttp.ClientConnectorDNSError as error:
        raise SourceError(f"{_shown(address)} has no address: the name does not resolve.") from error
    except aiohttp.InvalidURL as error:
        raise SourceError(f"{_shown(address)} is not a well-formed address.") from error
    except aiohttp.ClientConnectorError as error:
        raise SourceError(f"{_shown(address)} cannot be reached: {error.strerror or 'no connection'}.") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise SourceError(f"{_shown(address)} cannot be fetched: {type(error).__name__}.") from error


async def _fetch(address: str, limits: ReadLimits, scope: Scope) -> Page:
    if not scope.allow_network:
        raise FetchRefused("is a page, and this job may not use the network.")
    resolver = PublicResolver(allow_private=scope.allow_private)
    connector = aiohttp.TCPConnector(
        resolver=resolver,
        use_dns_cache=False,
        force_close=True,
        socket_factory=guarded_socket(allow_private=scope.allow_private),
    )
    # Proxies, netrc and cookies of the environment would lead a fetch elsewhere, or give something away.
    async with aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(),
    ) as session:
        for hop in range(limits.max_redirects + 1):
            _check(address, hop, scope)
            try:
                async with session.get(address, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await _body(response, address, limits)
                    address = _target(address, response)
            except (aiohttp.ClientConnectorError, FetchRefused) as error:
                refused = _refused_within(error)
                if refused is None:
                    raise
                raise FetchRefused(_where(address, hop) + str(refused)) from error
    raise SourceError(f"redirects more than {limits.max_redirects} times.")


def _target(address: str, response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location")
    if not location:
        raise SourceError(f"answers HTTP {response.status} and does not say where to go.")
    try:
        return urljoin(address, location)
    except ValueError as error:
        raise FetchRefused(f"redirects to {_shown(location)}, which is not a well-formed address.") from error


def _where(address: str, hop: int) -> str:
    return f"redirects to {_shown(address)}, which " if hop else ""


def _check(address: str, hop: int, scope: Scope) -> None:
    where = _where(address, hop)
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise FetchRefused(f"{where}is not a well-formed address.") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise FetchRefused(f"{where}is not an http or https address.")
    if parts.username is not None or parts.password is not None:
        raise FetchRefused(f"{where}carries a user name; such addresses are not fetched.")
    try:
        scope.check(address)
        check_literal(host, allow_private=scope.allow_private)
    except FetchRefused as error:
        raise FetchRefused(f"{where}{error}") from error


async def _body(response: aiohttp.ClientResponse, address: str, limits: ReadLimits) -> Page:
    if response.status != 200:
        raise SourceError(f"answers HTTP {response.status}.")
    media_type = response.content_type.lower()
    if not media_type.startswith(_READABLE):
        raise SourceError(f"is {media_type}, which has no text that we can read.")
    too_large = (
        f"is larger than {limits.max_page_bytes / MEGABYTE:g} MB; reading stopped there. "
        "Raise max_page_mb under [sources] in agentflow.toml."
    )
    if (response.content_length or 0) > limits.max_page_bytes:
        raise SourceError(too_large)
    body = bytearray()
    # Decompressed bytes are counted as they come, so neither an endless body nor a bomb is ever held whole.
    async for block in response.content.iter_chunked(64 * 1024):
        body += block
        if len(body) > limits.max_page_bytes:
            raise SourceError(too_large)
    kind = "text/html" if "html" in media_type else media_type
    return Page(address, bytes(body), kind, response.charset, _last_modified(response.headers.get("Last-Modified")))


def _last_modified(said: str | None) -> SourceDate | None:
    try:
        moment = parsedate_to_datetime(said) if said else None
        return None if moment is None else SourceDate(moment.astimezone(UTC).date(), "server")
    except (ValueError, OverflowError):
        return None


def _refused_within(error: BaseException) -> FetchRefused | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FetchRefused):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _shown(address: str) -> str:
    """The address without a query or a password, on one line, for a message."""
    bare = address.split("#", 1)[0].split("?", 1)[0]
    scheme, separator, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    return printable(f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}")[:200]
