"""Evidence on many questions at once: what each rung said, how sure it was, what is known of the question.

Rows are questions, columns are rungs. One live call is a batch of one. Imports regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from agentflow.cascade.routing.regression import Floats, Ints

Rows = npt.NDArray[np.int64] | npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Node:
    """How far a climb is: which rungs were asked, and whose signal was read. Both in the cascade's order."""

    asked: tuple[int, ...] = ()
    read: tuple[int, ...] = ()

    def ask(self, rung: int, *, read: bool) -> Node:
        """After asking one more rung; its signal rides on the reply or not."""
        asked = tuple(sorted((*self.asked, rung)))
        return Node(asked, tuple(sorted((*self.read, rung))) if read else self.read)

    def probe(self, rung: int) -> Node:
        """After reading the signal of a rung that was asked."""
        return Node(self.asked, tuple(sorted((*self.read, rung))))


@dataclass(frozen=True, slots=True)
class Evidence:
    """n questions, m rungs, k numbers known of a question before any reply.

    Args:
        confidence: n x m, each rung's raw signal as a probability; only what a node says was read is looked at.
        answers: n x m, equal numbers for equal answers of one question.
        about: n x k.
        price: n x m, of asking each rung, in good replies (``Worth.price / Worth.good``).
        signal_price: n x m, of reading its signal, the same.
    """

    confidence: Floats
    answers: Ints
    about: Floats
    price: Floats
    signal_price: Floats

    def of(self, rows: Rows) -> Evidence:
        """Some of the questions."""
        return Evidence(
            self.confidence[rows], self.answers[rows], self.about[rows], self.price[rows], self.signal_price[rows]
        )

    def priced(self, price: Floats, signal_price: Floats) -> Evidence:
        """The same at other prices."""
        return replace(self, price=price, signal_price=signal_price)

    def __len__(self) -> int:
        """How many questions."""
        return len(self.confidence)


def rungs_worth_asking(good: Floats, cost: Floats) -> tuple[int, ...]:
    """The rungs that no other makes useless, by outcomes of all of them on the same questions.

    A rung is useless when another is as good at nine tenths of its price, or clearly better (by three standard errors
    of the difference) at about the same. Fewer rungs mean fewer ways to mistake noise for a gain.

    Args:
        good: n x m, 0 or 1.
        cost: n x m, in any one unit.
    """
    mean, price, n = good.mean(axis=0), cost.mean(axis=0), len(good)

    def useless(rung: int) -> bool:
        for other in range(good.shape[1]):
            error = float((good[:, other] - good[:, rung]).std()) / max(n, 1) ** 0.5
            if other == rung:
                continue
            if price[other] <= 0.9 * price[rung] and mean[other] >= mean[rung]:
                return True
            if price[other] <= 1.05 * price[rung] and mean[other] - mean[rung] > 3.0 * error:
                return True
        return False

    return tuple(rung for rung in range(good.shape[1]) if not useless(rung))


def one_of(names: Sequence[str], known: tuple[str, ...]) -> Floats:
    """N x k: 1 where a name is the known one of that column."""
    return np.array([[float(name == one) for one in known] for name in names]).reshape(len(names), len(known))
