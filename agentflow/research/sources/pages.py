"""Web pages: fetched with bounds on address, size, time and redirects. Every page is treated as hostile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import aiohttp

from agentflow.errors import FetchRefused, SourceError
from agentflow.research.sources.addresses import PublicResolver, check_literal
from agentflow.research.sources.extract import DOCX, extract
from agentflow.research.sources.source import MEGABYTE, Extracted, ReadLimits

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_READABLE = ("text/", "application/json", "application/pdf", "application/xhtml", "application/xml", DOCX)
_HEADERS = {"User-Agent": "agentflow-research/0.1", "Accept": "text/html,application/pdf,text/*;q=0.9,*/*;q=0.1"}


@dataclass(frozen=True, slots=True)
class Page:
    """A fetched body before extraction. ``address`` is where the redirects ended."""

    address: str
    body: bytes
    media_type: str


async def read_page(address: str, limits: ReadLimits, *, allow_private: bool) -> Extracted:
    """Fetch a page and get its text out.

    Raises:
        SourceError: it cannot be fetched or read; the message begins with the address.
        FetchRefused: its address, or one it redirects to, is not visited.
    """
    try:
        async with asyncio.timeout(limits.page_timeout_s):
            page = await _fetch(address, limits, allow_private=allow_private)
        return await asyncio.to_thread(extract, page.body, page.media_type, urlsplit(page.address).path, limits)
    except FetchRefused as error:
        raise FetchRefused(f"{_shown(address)} {error}") from error
    except SourceError as error:
        raise SourceError(f"{_shown(address)} {error}") from error
    except TimeoutError as error:
        raise SourceError(f"{_shown(address)} did not answer within {limits.page_timeout_s:g} s.") from error
    except aiohttp.ClientConnectorDNSError as error:
        raise SourceError(f"{_shown(address)} has no address: the name does not resolve.") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise SourceError(f"{_shown(address)} cannot be fetched: {type(error).__name__}.") from error


async def _fetch(address: str, limits: ReadLimits, *, allow_private: bool) -> Page:
    resolver = PublicResolver(allow_private=allow_private)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    # Proxies, netrc and cookies of the environment would lead a fetch elsewhere, or give something away.
    async with aiohttp.ClientSession(
        connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), headers=_HEADERS
    ) as session:
        for hop in range(limits.max_redirects + 1):
            _check(address, hop, allow_private=allow_private)
            try:
                async with session.get(address, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await _body(response, address, limits)
                    address = urljoin(address, response.headers.get("Location", ""))
            except aiohttp.ClientConnectorError as error:
                refused = _refused_within(error)
                if refused is not None:
                    raise FetchRefused(
                        f"redirects to {_shown(address)}, which {refused}" if hop else str(refused)
                    ) from error
                raise
    raise SourceError(f"redirects more than {limits.max_redirects} times.")


def _check(address: str, hop: int, *, allow_private: bool) -> None:
    parts = urlsplit(address)
    where = f"redirects to {_shown(address)}, which " if hop else ""
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise FetchRefused(f"{where}is not an http or https address.")
    if parts.username is not None or parts.password is not None:
        raise FetchRefused(f"{where}carries a user name; such addresses are not fetched.")
    try:
        check_literal(parts.hostname, allow_private=allow_private)
    except FetchRefused as error:
        raise FetchRefused(f"{where}{error}") from error


async def _body(response: aiohttp.ClientResponse, address: str, limits: ReadLimits) -> Page:
    if response.status != 200:
        raise SourceError(f"answers HTTP {response.status}.")
    media_type = response.content_type.lower()
    if not media_type.startswith(_READABLE):
        raise SourceError(f"is {media_type}, which has no text that we can read.")
    body = bytearray()
    # Decompressed bytes are counted as they come, so neither an endless body nor a bomb is ever held whole.
    async for block in response.content.iter_chunked(64 * 1024):
        body += block
        if len(body) > limits.max_page_bytes:
            raise SourceError(f"is larger than {limits.max_page_bytes / MEGABYTE:g} MB; reading stopped there.")
    kind = "text/html" if "html" in media_type else media_type
    return Page(address, _as_declared(bytes(body), response.charset, kind), kind)


def _as_declared(body: bytes, charset: str | None, media_type: str) -> bytes:
    """Text in UTF-8, when the server said what it is in; an encoding that does not exist or does not fit is ignored."""
    if charset is None or media_type in ("application/pdf", DOCX):
        return body
    try:
        return body.decode(charset).encode("utf-8")
    except (LookupError, UnicodeDecodeError):
        return body


def _refused_within(error: BaseException) -> FetchRefused | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FetchRefused):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _shown(address: str) -> str:
    """The address without a query or a password, for a message."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"[:200]
