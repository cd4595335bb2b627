"""Grounding: which claims each leaf of some data comes from, found by code; or why it comes from none.

A leaf is carried by claims as a claim is by quotes. Imports citations, json_schema, lexicon, report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, cast

from agentflow.research.citations import numbers, why_unsupported
from agentflow.research.json_schema import pointer
from agentflow.research.lexicon import Lexicon, terms
from agentflow.research.report import Claim

Leaf = str | int | float | bool | None
# Up to so many words a text must stand in a claim as it is; a longer one may say it in other words.
SHORT_WORDS: Final = 3
# A claim is part of a longer text's basis when it adds so much of the text's weight.
_ADDS: Final = 0.1
# From here on scripts are written without spaces, so a word's edges cannot be seen.
_UNSPACED: Final = 0x2E80


@dataclass(frozen=True, slots=True)
class Ground:
    """What data may rest on.

    Args:
        claims: the verified claims.
        named: texts that the schema itself names: they are chosen, not found.
        lexicon: weighs terms by how telling they are in the corpus.
        support: the least share of a longer text's weight that claims must cover.
    """

    claims: tuple[Claim, ...]
    named: frozenset[str]
    lexicon: Lexicon
    support: float

    def basis(self, data: Any) -> Mapping[str, tuple[str, ...]]:
        """For each leaf, by its JSON pointer, the ids of the claims it comes from.

        A number must stand in a claim in digits. A text of up to three words must stand in a claim, whatever its case;
        a longer one must stand there too, or claims must carry it as quotes carry a claim. What no claim can tell has
        no basis, and needs none: true, false, null, an empty text, a text that the schema names.

        Raises:
            ValueError: a leaf comes from no claim; the message names it.
        """
        return {pointer(path): self._of(pointer(path), leaf) for path, leaf in leaves(data)}

    def _of(self, place: str, leaf: Leaf) -> tuple[str, ...]:
        if leaf is None or isinstance(leaf, bool) or leaf == "":
            return ()
        if not isinstance(leaf, str):
            return self._number(place, leaf)
        alone = tuple(claim.id for claim in self.claims if any(_stands(leaf, text) for text in _texts(claim)))
        if alone or leaf in self.named:
            return alone
        if len(leaf.split()) <= SHORT_WORDS:
            raise ValueError(f"{place}: '{leaf[:80]}' does not stand in any claim")
        return self._carried(place, leaf)

    def _number(self, place: str, leaf: float) -> tuple[str, ...]:
        # What is no number (NaN) is written in letters, and stands nowhere.
        wanted = numbers(f"{Decimal(str(leaf)):f}")
        found = tuple(claim.id for claim in self.claims if wanted and wanted <= numbers("\n".join(_texts(claim))))
        if not found:
            raise ValueError(f"{place}: the number {leaf} does not stand in any claim")
        return found

    def _carried(self, place: str, leaf: str) -> tuple[str, ...]:
        """The claims that carry a longer text together: each adds words of it that those before it do not have."""
        wanted, known = set(terms(leaf)), {claim.id: set(terms(" ".join(_texts(claim)))) for claim in self.claims}
        covered: set[str] = set()
        chosen: list[Claim] = []
        rest = list(self.claims)
        while rest:
            nearest = max(rest, key=lambda claim: self.lexicon.overlap(wanted, covered | known[claim.id]))
            gained = self.lexicon.overlap(wanted, covered | known[nearest.id]) - self.lexicon.overlap(wanted, covered)
            if gained < _ADDS:
                break
            rest.remove(nearest)
            chosen.append(nearest)
            covered |= known[nearest.id]
        reason = why_unsupported(leaf, [text for c in chosen for text in _texts(c)], self.lexicon, self.support)
        if reason is not None:
            raise ValueError(f"{place}: '{leaf[:80]}': {reason.replace('cited text', 'claims')}")
        return tuple(claim.id for claim in self.claims if claim in chosen)


def leaves(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Leaf]]:
    """Every value that holds no others, with its place.

    Example:
        >>> list(leaves({"a": [1, "x"]}))
        [(('a', 0), 1), (('a', 1), 'x')]
    """
    if isinstance(data, dict):
        for key, value in cast("dict[str, Any]", data).items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list):
        for place, value in enumerate(cast("list[Any]", data)):
            yield from leaves(value, (*path, place))
    else:
        yield path, data


def _texts(claim: Claim) -> tuple[str, ...]:
    """A claim as it is written, and as it was verified."""
    return (claim.text,) if claim.original is None else (claim.text, claim.original)


def _stands(words: str, text: str) -> bool:
    """Whether words stand in a text as they are, but for case and white space, and not as parts of longer words."""
    wanted, within = " ".join(words.split()).casefold(), " ".join(text.split()).casefold()
    if any(ord(letter) >= _UNSPACED for letter in wanted):
        return wanted in within
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", within) is not None
