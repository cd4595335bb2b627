"""Questions that mean the same: an earlier reply for another wording, where numbers and names agree to the letter.

Only the last message may be worded otherwise; all before it, schema, tools, settings, rungs and tenant are the same.
Two wordings count as one by the cosine of their embeddings, exact over all that are kept. Embedding is metered as a
code rung. May import cache, computing and all below. ``reusing`` asks here when the very question is not known.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import unicodedata
from dataclasses import dataclass, replace
from typing import Any, Final

from agentflow.cascade.cache import Reusing, key_of
from agentflow.cascade.climb import Climb
from agentflow.cascade.computing import compute
from agentflow.cascade.reply import Attempt
from agentflow.cascade.reply_file import KeptReply, Likeness
from agentflow.cascade.rung import CodeRung
from agentflow.errors import BackendError, BudgetExceeded
from agentflow.messages import Request

_LOG = logging.getLogger(__name__)
# Of longer texts an embedding says what they are about, and no longer what they ask.
LONGEST: Final = 2_000
_MOST_COMPARED: Final = 5_000
_NUMBER_WORDS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half "
    "quarter double triple first second third fourth fifth once twice not no never none without nor neither except "
    "only before after above below more less least most min max minimum maximum"
)
_DECIDING: Final = frozenset(_NUMBER_WORDS.split())
_QUOTED: Final = re.compile(r"\"([^\"]*)\"|“([^”]*)”|«([^»]*)»|„([^“”]*)[“”]|`([^`]*)`|(?<!\w)'([^']*)'(?!\w)")
_WORD: Final = re.compile(r"[+\-−<>=≤≥]*[\w][\w.,:/%°'’+\-]*|[^\w\s]")
_SENTENCE_ENDS: Final = frozenset(".!?:\n")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a question that was looked up by meaning: the reply, if there is one, and how alike it was."""

    likeness: Likeness
    kept: KeptReply | None = None
    cosine: float = 0.0


def guard(text: str) -> str:
    """What two wordings must share to the letter, in order: numbers, quoted texts, names, negations.

    A name is a word with a capital that does not begin a sentence, or one with a capital inside. What is told apart
    for nothing costs a call; what is not told apart costs a wrong answer.
    """
    text = unicodedata.normalize("NFC", text)
    found = [(m.start(), "quoted " + next(g for g in m.groups() if g is not None)) for m in _QUOTED.finditer(text)]
    begins = True
    for match in _WORD.finditer(text):
        word = match[0]
        bare = word.strip(".,:/'’-")
        if any(c.isnumeric() for c in word):
            found.append((match.start(), word.rstrip(".,:/'’")))
        elif bare.lower() in _DECIDING or bare.lower().endswith(("n't", "n’t")):
            found.append((match.start(), bare.lower()))
        elif bare and (bare[1:] != bare[1:].lower() or (not begins and bare[0] != bare[0].lower())):
            found.append((match.start(), bare))
        begins = word[-1] in _SENTENCE_ENDS
    return "\x1f".join(word for _, word in sorted(found))


async def look_alike(climb: Climb, request: Request, reusing: Reusing, scope: str) -> Known | None:
    """Look for the reply to another wording.

    Args:
        climb: the call.
        request: its question.
        reusing: how alike, how old.
        scope: names all that decides a reply beside the request.

    Returns:
        What is known; None when the question cannot be looked up by meaning.

    Raises:
        LedgerError: what embedding costs cannot be recorded.
    """
    embedding, least = reusing.embedding, reusing.reuse.similarity
    last = request.messages[-1] if request.messages else None
    if (
        embedding is None
        or least is None
        or last is None
        or last.role != "user"
        or not 0 < len(last.content) <= LONGEST
    ):
        return None
    vector = await _embedded(climb, embedding, request)
    if vector is None:
        return None
    around = replace(request, messages=(*request.messages[:-1], replace(last, content="")))
    likeness = Likeness(key_of(f"{scope}|{embedding.name}", around), _digest(guard(last.content)), vector)
    found = await reusing.cache.file.like(likeness.scope, likeness.guard, reusing.reuse.seconds, _MOST_COMPARED)
    key, cosine = _most_alike(vector, found)
    if key is None or cosine < least:
        return Known(likeness, cosine=cosine)
    return Known(likeness, await reusing.find(key), cosine)


def _digest(text: str) -> str:
    """Equal for equal texts alone: what users wrote is not kept."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


async def _embedded(climb: Climb, embedding: CodeRung, request: Request) -> bytes | None:
    """The question's vector; None when the budget has no room for it, or the embedder fails."""
    scope = climb.scope
    key = f"{scope.key}|embedding|{secrets.token_hex(4)}"
    labels = replace(scope.labels, cascade=climb.cascade, rung=embedding.name, kind="code")
    try:
        hold = await scope.reserve(embedding.quote(), key, labels)
        assert hold is not None, "nobody else has this key"
        with hold:
            answer, spend = await compute(
                embedding, replace(request, inputs=request.messages[-1].content), hold, key, scope
            )
    except (BackendError, BudgetExceeded) as error:
        _LOG.warning("A question is not looked up by meaning: %s", error)
        return None
    reason = "the question's meaning, for the cache"
    attempt = Attempt(embedding.name, "code", climb.trail.number, "evidence", spend, reason=reason)
    climb.trail.attempts.append(attempt)
    scope.observe(attempt)
    scope.ledger.judge(key, "evidence", None)
    return bytes(answer.value)


def _most_alike(vector: bytes, kept: list[tuple[str, bytes]]) -> tuple[str | None, float]:
    """The key of the nearest vector, and its cosine; vectors are of unit length."""
    import numpy as np

    rows = [(key, other) for key, other in kept if len(other) == len(vector)]
    if not rows or not vector:
        return None, 0.0
    matrix: Any = np.frombuffer(b"".join(other for _, other in rows), dtype=np.float32).reshape(len(rows), -1)
    cosines = matrix @ np.frombuffer(vector, dtype=np.float32)
    best = int(cosines.argmax())
    return rows[best][0], float(cosines[best])
