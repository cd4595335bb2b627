"""Which addresses a fetch may visit: public ones, judged after DNS, and once more at the moment of dialling.

Imports errors, aiohttp. ``pages`` uses it for every hop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp.abc import AbstractResolver, ResolveResult

from agentflow.errors import FetchRefused

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SHARED = ipaddress.ip_network("100.64.0.0/10")
# IPv4 inside IPv6 that ends at whatever relay answers: 6to4, Teredo, NAT64 of a local network (RFC 8215).
_TUNNELS = tuple(ipaddress.ip_network(net) for net in ("2002::/16", "2001::/32", "64:ff9b:1::/48"))
_KINDS = ("loopback", "link_local", "multicast", "unspecified", "reserved", "site_local", "private")


def refusal(address: str) -> str | None:
    """Why an IP address is not visited (``private``, ``loopback``, …), or None when it is public.

    Raises:
        ValueError: it is not an IP address.
    """
    ip = _seen_through(ipaddress.ip_address(address.split("%", 1)[0]))
    for kind in _KINDS:
        if getattr(ip, f"is_{kind}", False):
            return kind.replace("_", "-")
    if ip.version == 4 and ip in _SHARED:
        return "shared (carrier-grade NAT)"
    if any(ip in network for network in _TUNNELS):
        return "tunnelled"
    return None if ip.is_global else "non-public"


def _seen_through(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that a mapped or a NAT64 address stands for; any other address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip


def check_address(address: str, *, allow_private: bool) -> None:
    """Refuse an IP address that is not public.

    Raises:
        FetchRefused: it is not, and ``allow_private`` is not set.
        ValueError: it is not an IP address.
    """
    why = None if allow_private else refusal(address)
    if why is not None:
        raise FetchRefused(
            f"leads to a {why} address ({address}). Pages there are not fetched; --allow-private lifts this."
        )


def check_literal(host: str, *, allow_private: bool) -> None:
    """Refuse a host written as a private IP address; a name passes, the resolver judges it.

    Raises:
        FetchRefused: the address is not public.
    """
    with contextlib.suppress(ValueError):
        check_address(host.strip("[]"), allow_private=allow_private)


def guarded_socket(*, allow_private: bool) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Makes sockets for the connector, to public addresses only.

    A resolver is not asked about hosts that look like addresses, and there are more ways to write those than we
    could list (``１２７.0.0.1``). This sees the address that is about to be dialled, whatever was written.
    """

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        check_address(str(address[0]), allow_private=allow_private)
        return socket.socket(family, kind, protocol)

    return make


class PublicResolver(AbstractResolver):
    """Resolves names and hands only public addresses to the connector, so what was judged is what is dialled."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses of ``host``.

        Raises:
            FetchRefused: any of them is not public: a name that mixes both is not trusted.
            OSError: the name does not resolve.
        """
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for found, _, protocol, _, address in infos:
            check_address(str(address[0]), allow_private=self._allow_private)
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=found,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is held."""
