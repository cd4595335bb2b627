"""Length: claims within a number of words. Whole claims are left out from the end; none is cut. Imports report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentflow.research.report import Claim

# Scripts that write no spaces between words: each of their letters counts as one, as word processors count.
_WORDS = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def word_count(text: str) -> int:
    """How many words a text has: what stands between white space; of Chinese and Japanese each character.

    Example:
        >>> word_count("The tide rises by 16 metres."), word_count("潮汐上升")
        (6, 4)
    """
    return sum(1 for found in _WORDS.findall(text) if any(letter.isalnum() for letter in found))


def within(claims: Sequence[Claim], max_words: int | None) -> tuple[tuple[Claim, ...], tuple[Claim, ...]]:
    """The claims that fit, and those left out: from the first that does not fit on.

    The first claim is always kept, also when it is longer by itself: an answer is not broken, nor withheld.

    Args:
        claims: in the order of the report.
        max_words: the most words of all their texts together; None: all fit.
    """
    if max_words is None:
        return tuple(claims), ()
    words = 0
    for place, claim in enumerate(claims):
        words += word_count(claim.text)
        if words > max_words and place > 0:
            return tuple(claims[:place]), tuple(claims[place:])
    return tuple(claims), ()
