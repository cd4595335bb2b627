"""What one call has tried so far: its attempts as reports will tell them, and the keys the ledger knows them by.

May import budget, telemetry, rung, reply, scope. ``climb`` and ``asking`` write it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from agentflow.budget.ledger import Labels
from agentflow.budget.spend import Spend
from agentflow.cascade.reply import Attempt, Outcome
from agentflow.cascade.rung import CodeRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.telemetry import tracing


class Trail:
    """The attempts of one call.

    Args:
        cascade: its name.
        scope: whose attempts they are, and who is told of each.
        skipped: rungs that were left out before the first attempt, told already.
    """

    def __init__(self, cascade: str, scope: CallScope, skipped: Sequence[Attempt] = ()) -> None:
        self.attempts: list[Attempt] = [*skipped]
        self._cascade = cascade
        self._scope = scope
        self._keys: Counter[str] = Counter()

    @property
    def number(self) -> int:
        """Of the next attempt."""
        return len(self.attempts) + 1

    def attempt(
        self,
        rung: Rung,
        outcome: Outcome,
        spend: Spend,
        reason: str = "",
        confidence: float | None = None,
        *,
        signal: float | None = None,
        repair: bool = False,
        replayed: bool = False,
        hedge: bool = False,
    ) -> Attempt:
        """Record an attempt that is over."""
        attempt = Attempt(
            rung.name,
            "code" if isinstance(rung, CodeRung) else "model",
            self.number,
            outcome,
            spend,
            confidence,
            reason,
            repair,
            replayed,
            in_doubt=spend.in_doubt > 0,
            signal=signal,
            hedge=hedge,
            site="" if isinstance(rung, CodeRung) else rung.site,
        )
        self.attempts.append(attempt)
        self._scope.observe(attempt)
        return attempt

    def skip(self, rung: Rung, why: object) -> None:
        """Record, once, that a rung was not asked."""
        if not any(a.outcome == "skipped" and a.rung == rung.name for a in self.attempts):
            self.attempt(rung, "skipped", Spend(), str(why))

    def note(self, key: str, attempt: Attempt) -> None:
        """Tell the ledger how an attempt that it knows by ``key`` was judged."""
        self._scope.ledger.judge(key, attempt.outcome, attempt.confidence)

    def labels(self, rung: Rung) -> Labels:
        """Whose attempt it is, for reports."""
        if isinstance(rung, CodeRung):
            return _labelled(self._scope.labels, self._cascade, rung.name, "code", "")
        return _labelled(self._scope.labels, self._cascade, rung.name, "model", rung.model)

    def next_key(self, rung: Rung, about: str = "") -> str:
        """The ledger's key of a rung's next attempt; every call gives another.

        Attempts of a rung are counted by themselves, and those for evidence by what they are ``about``: which of two
        that run side by side comes first is timing, and a repeated run must find each by the same key.
        """
        named = f"{rung.name}|{about}" if about else rung.name
        self._keys[named] += 1
        return f"{self._scope.key}|{self._keys[named]}|{named}"

    def key(self, rung: Rung, number: int) -> str:
        """The ledger's key of an attempt of a rung that is no evidence, by its number from 1."""
        return attempt_key(self._scope.key, rung, number)

    def unused(self, rung: Rung, about: str = "") -> None:
        """Give back the key that ``next_key`` gave last: the rung was not asked after all."""
        self._keys[f"{rung.name}|{about}" if about else rung.name] -= 1


def attempt_key(call: str, rung: Rung, number: int) -> str:
    """The ledger's key of an attempt that is no evidence: the call's key, and the rung's how many-th it is, from 1."""
    return f"{call}|{number}|{rung.name}"


def facts(attempt: Attempt) -> tracing.AttemptFacts:
    """An attempt as its span tells it."""
    energy = attempt.spend.energy
    return tracing.AttemptFacts(
        attempt.outcome,
        attempt.reason,
        attempt.confidence,
        attempt.spend.nano_usd,
        (energy.mean, energy.low, energy.high),
        energy.provenance,
        attempt.spend.seconds,
        attempt.replayed,
    )


@functools.lru_cache(maxsize=1_000)
def _labelled(labels: Labels, cascade: str, rung: str, kind: str, model: str) -> Labels:
    """The labels of attempts at a rung: the same for every call of one name."""
    return replace(labels, cascade=cascade, rung=rung, kind=kind, model=model)
