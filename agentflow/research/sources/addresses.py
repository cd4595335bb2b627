"""Which addresses a fetch may visit: public ones, judged after DNS, and connected to exactly as judged."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from agentflow.errors import FetchRefused

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SHARED = ipaddress.ip_network("100.64.0.0/10")


def refusal(address: str) -> str | None:
    """Why an IP address is not visited (``private``, ``loopback``, …), or None when it is public."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    for inner in _embedded(ip) or [ip]:
        for kind in ("loopback", "link_local", "multicast", "unspecified", "reserved", "private"):
            if getattr(inner, f"is_{kind}"):
                return kind.replace("_", "-")
        if inner.version == 4 and inner in _SHARED:
            return "shared (carrier-grade NAT)"
        if not inner.is_global:
            return "not public"
    return None


def _embedded(ip: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """IPv4 addresses that an IPv6 address carries inside: mapped, 6to4, Teredo, NAT64."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [inner for inner in found if inner is not None]


def check_literal(host: str, *, allow_private: bool) -> None:
    """Refuse a host written as a private IP address; a name passes, the resolver judges it.

    Raises:
        FetchRefused: the address is not public.
    """
    try:
        why = refusal(host.strip("[]"))
    except ValueError:
        return
    if why is not None and not allow_private:
        raise FetchRefused(
            f"leads to a {why} address ({host}). Pages there are not fetched; --allow-private lifts this."
        )


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
            why = refusal(str(address[0]))
            if why is not None and not self._allow_private:
                raise FetchRefused(
                    f"leads to a {why} address ({address[0]}). Pages there are not fetched; --allow-private lifts this."
                )
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
