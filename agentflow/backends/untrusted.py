"""What a server sends, believed only as far as it makes sense: bodies of bounded length, values of the kind expected.

Imports messages, errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import aiohttp

from agentflow.errors import BadReply
from agentflow.messages import writable

_MOST_TOKENS: Final = 100_000_000
# Far beyond any joule, millisecond or log-probability, and far from where sums of floats overflow.
_MOST: Final = 1e15
_MOST_NAME_CHARS: Final = 256


async def bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body of a response.

    Raises:
        BadReply: it is longer than ``most`` bytes.
    """
    length = response.content_length
    if length is not None and length <= most and "Content-Encoding" not in response.headers:
        # It cannot be more than it says; packed, it could be.
        return await response.read()
    body = bytearray()
    async for block in response.content.iter_chunked(65_536):
        body += block
        if len(body) > most:
            raise BadReply(f"The server sent more than {most:,} bytes where a short reply was due.")
    return bytes(body)


def mapping(value: Any) -> Mapping[str, Any] | None:
    """A JSON object; None for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None


def items(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a JSON array; none of anything else."""
    if not isinstance(value, list):
        return []
    return [item for item in map(mapping, cast("list[Any]", value)) if item is not None]


def count(value: Any) -> int | None:
    """A number of tokens or of other small things; None when it cannot be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_TOKENS:
        return None
    return int(value)


def number(value: Any) -> float | None:
    """A number as a float; None when it cannot be one. JSON's integers may be larger than any float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_MOST <= value <= _MOST:
        return None
    return float(value)


def text(value: Any) -> str | None:
    """A string; None for anything else."""
    return value if isinstance(value, str) else None


def name(value: Any) -> str | None:
    """A name that a server gives: bounded, and such as every database and viewer can write."""
    return writable(value[:_MOST_NAME_CHARS]) if isinstance(value, str) else None
