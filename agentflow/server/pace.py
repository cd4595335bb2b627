"""Rate limits: how many requests a key may make. Imports jobs.annex, tables.

A leaky bucket for each key: a minute's requests may come at once, and flow back evenly. Where servers share PostgreSQL
they share the buckets, at one statement a request; a server over SQLite is alone with it, and keeps them in memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import sqlalchemy as sa

from agentflow.jobs.annex import Annex

# Those that have not called for longest are forgotten, and begin anew with a full allowance.
_REMEMBERED: Final = 10_000
_MINUTE_US: Final = 60_000_000
# Times are microseconds by the database's clock, which all servers share: ``excluded.empty_us`` is when the bucket
# would be empty again if this request were alone in it. What a request takes is rounded up: a minute holds as many of
# them only with a microsecond to spare for each.
_COUNT: Final = sa.text(
    """
    insert into agentflow_pace as pace (key, empty_us, wait_us)
    values (:key, (extract(epoch from clock_timestamp()) * 1000000)::bigint + :each, 0)
    on conflict (key) do update set
        wait_us = greatest(pace.empty_us + :each - excluded.empty_us + :each - :most, 0),
        empty_us = case
            when pace.empty_us + :each - excluded.empty_us + :each > :most then pace.empty_us
            else greatest(pace.empty_us + :each, excluded.empty_us)
        end
    returning wait_us
    """
)


class Pace(Protocol):
    """Counts the requests of keys."""

    async def wait_s(self, key: str, per_minute: int) -> float:
        """Count a request: 0 lets it through; else it is refused, and the next fits in so many seconds.

        Raises:
            JobStoreError: the buckets are in a database that cannot be used.
        """
        ...


class OwnPace:
    """The buckets of one process.

    Args:
        clock: monotonic seconds, for tests.

    Example:
        >>> pace = OwnPace(clock=lambda: 0.0)
        >>> [pace.count("key", per_minute=2) for _ in range(3)]
        [0.0, 0.0, 30.0]
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When the bucket of each key will be empty again.
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    async def wait_s(self, key: str, per_minute: int) -> float:
        """See ``Pace``."""
        return self.count(key, per_minute)

    def count(self, key: str, per_minute: int) -> float:
        """The same, for whoever does not wait."""
        now, each = self._clock(), 60.0 / per_minute
        level = max(self._empty_at.get(key, now), now) - now
        if level + each > 60.0 + 1e-9:
            return level + each - 60.0
        self._empty_at[key] = now + level + each
        self._empty_at.move_to_end(key)
        if len(self._empty_at) > _REMEMBERED:
            self._empty_at.popitem(last=False)
        return 0.0


class SharedPace:
    """The buckets of all servers over one PostgreSQL.

    A key that was refused is refused here until its next request fits, without asking again.

    Args:
        annex: the server's tables.
        clock: monotonic seconds, for tests.
    """

    def __init__(self, annex: Annex, clock: Callable[[], float] = time.monotonic) -> None:
        self._annex = annex
        self._clock = clock
        self._refused_until: OrderedDict[str, float] = OrderedDict()

    async def wait_s(self, key: str, per_minute: int) -> float:
        """See ``Pace``."""
        left = self._refused_until.get(key, 0.0) - self._clock()
        if left > 0.0:
            return left
        given = {"key": key, "each": -(-_MINUTE_US // per_minute), "most": _MINUTE_US + per_minute}
        wait_us = await self._annex.write(lambda connection: int(connection.execute(_COUNT, given).scalar_one()))
        if wait_us > 0:
            self._refused_until[key] = self._clock() + wait_us / 1e6
            self._refused_until.move_to_end(key)
            if len(self._refused_until) > _REMEMBERED:
                self._refused_until.popitem(last=False)
        return wait_us / 1e6


def open_pace(annex: Annex) -> Pace:
    """Shared buckets where other servers may use the same tables, else this process's own."""
    return SharedPace(annex) if annex.shared else OwnPace()
