"""A query router: which rungs to skip, guessed from the question alone. Off unless a policy is wrapped in ``Skipping``.

Routers of this kind do well on the tasks that they were trained on, and worse than none on others: on nine models and
four benchmarks, one left out at a time, kNN and logistic routers on embeddings lose to no routing in every case but
one (``benchmarks.cascade``). So this one is watched, and stops skipping by itself when its guesses are no better than
the mean. Imports state and regression.
"""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from agentflow.cascade.routing.regression import Floats, chance, logistic
from agentflow.cascade.routing.state import Decision, Routing, State

_PENALTY = 10.0
_NEIGHBOURS = 40
WINDOW = 50
# One question in so many is asked of every rung, so that what came of a guess stays known.
_HELD_OUT = 20


def question_features(text: str) -> tuple[float, ...]:
    """Numbers for ``State.features`` that cost nothing: length, digits, lines, long words, symbols of formulas."""
    words = text.split()
    return (
        float(np.log1p(len(text))),
        sum(map(str.isdigit, text)) / max(len(text), 1),
        float(np.log1p(text.count("\n"))),
        sum(map(len, words)) / max(len(words), 1),
        len(re.findall(r"[=+*/<>^{}\\]", text)) / max(len(text), 1),
    )


class QueryRouter:
    """The chance that a rung's reply will pass, from the question's features.

    Args:
        features: n x k, of questions that were asked.
        passed: by rung name, n times 1 where its reply was good.
        kind: ``logistic``, or the mean of the 40 nearest questions.
    """

    def __init__(
        self, features: Floats, passed: Mapping[str, Floats], kind: Literal["logistic", "knn"] = "logistic"
    ) -> None:
        self._mean, self._deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
        self._known = self._scaled(features)
        self._passed = dict(passed)
        self._kind = kind
        self._weights = {name: logistic(_with_ones(self._known), y, _PENALTY) for name, y in self._passed.items()}

    def chance(self, rung: str, features: Sequence[float]) -> float | None:
        """0 to 1; None for a rung that it never saw, or features of another length."""
        if rung not in self._passed or len(features) != self._known.shape[1]:
            return None
        asked = self._scaled(np.array([features], np.float64))
        if self._kind == "logistic":
            return float(chance(_with_ones(asked) @ self._weights[rung])[0])
        nearest = np.argsort(((self._known - asked) ** 2).sum(axis=1), kind="stable")[:_NEIGHBOURS]
        return float(self._passed[rung][nearest].mean())

    def _scaled(self, features: Floats) -> Floats:
        scaled: Floats = (features - self._mean) / self._deviation
        return scaled


@dataclass(slots=True)
class RouterWatch:
    """Holds guesses against what came of them, and says whether they are still better than the mean.

    Example:
        >>> watch = RouterWatch(window=4)
        >>> for guess, passed in ((0.9, True), (0.1, False), (0.9, True), (0.1, False)):
        ...     watch.saw(guess, passed)
        >>> watch.trusted
        True
    """

    window: int = WINDOW
    _seen: deque[tuple[float, bool]] = field(default_factory=deque[tuple[float, bool]], repr=False)

    def saw(self, guess: float, passed: bool) -> None:
        """Count what came of a rung that was asked although, or because, the router made this guess."""
        self._seen.append((guess, passed))
        if len(self._seen) > self.window:
            self._seen.popleft()

    @property
    def trusted(self) -> bool:
        """Whether the squared error of a full window of guesses is below that of the window's mean."""
        if len(self._seen) < self.window:
            return False
        mean = sum(passed for _, passed in self._seen) / len(self._seen)
        guessed = sum((guess - passed) ** 2 for guess, passed in self._seen)
        return guessed < sum((mean - passed) ** 2 for _, passed in self._seen)


@dataclass(frozen=True, slots=True)
class Skipping:
    """Another policy, that is not shown cheap rungs which are not worth asking.

    A rung is skipped when what asking it saves, ``chance * price of the next``, is less than what asking it costs, its
    signal included. The dearest rung is never skipped, nor any while the watch does not trust the router.

    Args:
        policy: decides among the rungs that are left.
        router: guesses.
        watch: is told by ``saw`` what came of each guess.
    """

    policy: Routing
    router: QueryRouter
    watch: RouterWatch = field(default_factory=RouterWatch)

    def choose(self, state: State) -> Decision:
        """The policy's decision, some rungs shut to it."""
        if not self.watch.trusted or _held_out(state.features):
            return self.policy.choose(state)
        rungs = list(state.rungs)
        for place, following in zip(range(len(rungs) - 1), rungs[1:], strict=True):
            rung = rungs[place]
            guess = self.router.chance(rung.name, state.features)
            own = state.worth.price(rung.cost if rung.signal is None else rung.cost + rung.signal)
            if guess is not None and guess * state.worth.price(following.cost) < own:
                rungs[place] = replace(rung, open=False)
        return self.policy.choose(replace(state, rungs=tuple(rungs)))

    def saw(self, rung: str, features: Sequence[float], passed: bool) -> None:
        """Count what came of a rung that was asked."""
        guess = self.router.chance(rung, features)
        if guess is not None:
            self.watch.saw(guess, passed)


def _held_out(features: Sequence[float]) -> bool:
    """By the question alone, so that a repeated run decides the same."""
    return zlib.crc32(np.array(features, np.float64).tobytes()) % _HELD_OUT == 0


def _with_ones(x: Floats) -> Floats:
    return np.hstack([np.ones((len(x), 1)), x])
