"""Keys: who may call, and what they may do. Imports jobs.annex, tables.

A key is 256 random bits, shown once. What is stored is their SHA-256: there is nothing to guess, as there is in a
password, so a slow hash with salt would cost time at every request and add nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from agentflow.errors import UsageError
from agentflow.jobs.annex import Annex
from agentflow.server.tables import key as keys

Scope = Literal["submit", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
_TOKEN: Final = re.compile(r"af_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without the secret that it is known by.

    Args:
        id: its public half, which the token begins with.
        name: yours.
        tenant: who pays, and whose jobs it sees.
        scopes: ``submit`` spends, ``read`` looks, ``admin`` does both and sees the server's own figures.
        requests_per_minute: of this key; the server's setting when None.
        created_ms: when it was made; milliseconds since 1970, UTC, as all times here.
        expires_ms: from when on it is no longer good.
        revoked_ms: when it was revoked.
    """

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope]
    requests_per_minute: int | None
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def good(self, at_ms: int) -> bool:
        """Whether it opens anything at this moment."""
        return self.revoked_ms is None and (self.expires_ms is None or at_ms < self.expires_ms)


class Keys:
    """All keys of one database."""

    def __init__(self, store: Annex) -> None:
        self._store = store

    async def create(
        self,
        name: str,
        tenant: str,
        scopes: Sequence[Scope],
        *,
        requests_per_minute: int | None = None,
        expires_ms: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key.

        Returns:
            The key, and its token: the only time that it can be seen.

        Raises:
            UsageError: a name is none that can be used, or no scope is given.
            JobStoreError: it could not be written.
        """
        for what, value in (("key", name), ("tenant", tenant)):
            if not _NAME.fullmatch(value):
                raise UsageError(
                    f"'{value[:80]}' cannot name a {what}. Use 1 to 64 letters, digits, '.', '_' and '-', beginning "
                    "with a letter or digit."
                )
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise UsageError(f"Scopes are {', '.join(SCOPES)}, at least one; asked was {', '.join(scopes) or 'none'}.")
        id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        key = Key(id, name, tenant, frozenset(scopes), requests_per_minute, _now_ms(), expires_ms)
        row = {
            "id": id, "name": name, "tenant": tenant, "scopes": " ".join(sorted(scopes)), "digest": _digest(secret),
            "requests_per_minute": requests_per_minute, "created_ms": key.created_ms, "expires_ms": expires_ms,
        }  # fmt: skip
        await self._store.write(lambda connection: connection.execute(keys.insert().values(row)))
        return key, f"af_{id}_{secret}"

    async def find(self, token: str) -> Key | None:
        """The key of this token, if it is one and is good now. An unknown one takes as long as a wrong one."""
        match = _TOKEN.fullmatch(token)
        id, secret = match.groups() if match is not None else ("0" * 16, "")
        row = await self._store.read(lambda c: c.execute(sa.select(keys).where(keys.c.id == id)).mappings().first())
        known = _digest("") if row is None else str(row["digest"])
        same = hmac.compare_digest(known, _digest(secret))
        if row is None or not same or match is None:
            return None
        key = _key(row)
        return key if key.good(_now_ms()) else None

    async def list(self) -> Sequence[Key]:
        """Every key, the newest first."""
        wanted = sa.select(keys).order_by(keys.c.created_ms.desc(), keys.c.id)
        return await self._store.read(lambda c: [_key(row) for row in c.execute(wanted).mappings()])

    async def any(self) -> bool:
        """Whether a key was ever made. From then on one is needed: revoking the last does not open the server."""
        wanted = sa.select(keys.c.id).limit(1)
        return await self._store.read(lambda c: c.execute(wanted).first() is not None)

    async def revoke(self, id: str) -> Key:
        """End a key for good.

        Raises:
            UsageError: there is none of this id.
            JobStoreError: it could not be written.
        """

        def work(connection: sa.Connection) -> Any:
            ended = keys.update().where(keys.c.id == id, keys.c.revoked_ms.is_(None)).values(revoked_ms=_now_ms())
            connection.execute(ended)
            return connection.execute(sa.select(keys).where(keys.c.id == id)).mappings().first()

        row = await self._store.write(work)
        if row is None:
            raise UsageError(f"There is no key of id '{id[:40]}'. List them with: agentflow keys list.")
        return _key(row)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Any) -> Key:
    scopes: Any = str(row["scopes"]).split()
    return Key(
        row["id"], row["name"], row["tenant"], frozenset(scopes), row["requests_per_minute"], row["created_ms"],
        row["expires_ms"], row["revoked_ms"],
    )  # fmt: skip


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
