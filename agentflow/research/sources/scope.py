"""Scope: what a reading may touch: which domains, whether the network at all, and sources of which days.

The same rules hold for an address that was named and for every one that a redirect leads to. Imports source, errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final, Literal
from urllib.parse import urlsplit

from agentflow.errors import FetchRefused
from agentflow.research.sources.source import SourceDate

LeftOut = Literal["date", "undated"]


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be read.

    Args:
        include_domains: only pages of these domains and those below them; any when empty.
        exclude_domains: no pages of these domains, nor of those below them.
        allow_network: whether pages are fetched at all.
        allow_private: fetch pages from private addresses too.
        after: only sources of this day or later.
        before: only sources of this day or earlier.
        undated: with ``after`` or ``before``, whether sources whose day nothing tells are left out.

    Example:
        >>> Scope(exclude_domains=("example.org",)).check("https://www.example.org/tides")
        Traceback (most recent call last):
        agentflow.errors.FetchRefused: is on 'www.example.org', which is below exclude_domains.
    """

    include_domains: tuple[str, ...] = ()
    exclude_domains: tuple[str, ...] = ()
    allow_network: bool = True
    allow_private: bool = False
    after: date | None = None
    before: date | None = None
    undated: Literal["skip", "keep"] = "skip"

    def check(self, address: str) -> None:
        """Refuse an address whose domain is out of bounds.

        Raises:
            FetchRefused: it is; the message has no address in it, the caller puts it in front.
        """
        if not (self.include_domains or self.exclude_domains):
            return
        host = host_of(address)
        if self.include_domains and not below(host, self.include_domains):
            raise FetchRefused(f"is on '{host}', which is not below include_domains.")
        if below(host, self.exclude_domains):
            raise FetchRefused(f"is on '{host}', which is below exclude_domains.")

    def left_out(self, found: SourceDate | None) -> tuple[LeftOut, str] | None:
        """Why a source of this day is left out: the kind of reason, and the reason in words. None: it is read."""
        if self.after is None and self.before is None:
            return None
        if found is None:
            return ("undated", "has no date, and undated sources are left out") if self.undated == "skip" else None
        if self.after is not None and found.day < self.after:
            return "date", f"dated {found}, before {self.after}"
        if self.before is not None and found.day > self.before:
            return "date", f"dated {found}, after {self.before}"
        return None


ANYTHING: Final = Scope()


def host_of(address: str) -> str:
    """The host of an address as it is looked up: lower case, without a final dot, its letters in ASCII (IDNA)."""
    try:
        host = (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""
    return _ascii(host)


def below(host: str, domains: tuple[str, ...]) -> bool:
    """Whether a host, as ``host_of`` gives it, is one of these domains or below one."""
    return any(host == domain or host.endswith(f".{domain}") for domain in (_ascii(d.strip(".")) for d in domains))


def _ascii(host: str) -> str:
    if host.isascii():
        return host.lower()
    # What the client that fetches does with such names; without it a rule could be passed by in other letters.
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii").rstrip(".").lower()
    except UnicodeError:
        return host.lower()
