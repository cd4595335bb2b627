"""What a request that is not on a cassette is nearest to, and what differs. Imports exchange."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

from agentflow.backends.exchange import Exchange

# Long prompts are compared by their beginnings: this is for a person to read.
_WORDS: Final = 2_000
_SHOWN: Final = 60
_CHANGES: Final = 3


def nearest(rung: str, asked: Mapping[str, Any], exchanges: Iterable[Exchange]) -> Exchange | None:
    """The exchange whose last message is most alike, those of the same rung first; None when there are none.

    Args:
        rung: who was asked.
        asked: the request, as ``exchange.readable`` gives it.
        exchanges: what is on the cassette.
    """
    last = _words(_last(asked))

    def likeness(exchange: Exchange) -> tuple[bool, float, int]:
        ratio = SequenceMatcher(None, last, _words(_last(exchange.request))).quick_ratio()
        return exchange.rung == rung, ratio, -exchange.line

    return max(exchanges, key=likeness, default=None)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between a recorded request and another, each in a few words."""
    found: list[str] = []
    recorded, asked = _messages(there), _messages(here)
    if len(recorded) != len(asked):
        found.append(f"{len(recorded)} messages there, {len(asked)} here")
    for number, (old, new) in enumerate(zip(recorded[:-1], asked[:-1], strict=False), start=1):
        if old != new:
            found.append(f"message {number} ({new.get('role')}): {_change(old, new)}")
    if recorded and asked and recorded[-1] != asked[-1]:
        found.append(f"its last message: {_change(recorded[-1], asked[-1])}")
    for name in sorted((there.keys() | here.keys()) - {"messages"}):
        if there.get(name) != here.get(name):
            found.append(_field(name, there.get(name), here.get(name)))
    return found


def last_words(request: Mapping[str, Any]) -> str:
    """The last message, shortened to be shown."""
    return _shown(_last(request))


def _change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two messages."""
    before, after = _words(str(old.get("content", ""))), _words(str(new.get("content", "")))
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    changes = [
        f"{_shown(' '.join(before[a:b])) or 'nothing'} there, {_shown(' '.join(after[c:d])) or 'nothing'} here"
        for kind, a, b, c, d in matcher.get_opcodes()
        if kind != "equal"
    ]
    if not changes:
        others = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        return f"other {' and '.join(name.replace('content', 'white space') for name in others)}"
    more = f" ({len(changes) - _CHANGES} more)" if len(changes) > _CHANGES else ""
    return ", ".join(changes[:_CHANGES]) + more


def _field(name: str, there: Any, here: Any) -> str:
    if name in ("tools", "schema"):
        return f"other {name}"
    return f"{name} {there} there, {here} here"


def _messages(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    messages = request.get("messages")
    return messages if isinstance(messages, list) else []  # pyright: ignore[reportUnknownVariableType]


def _last(request: Mapping[str, Any]) -> str:
    messages = _messages(request)
    return str(messages[-1].get("content", "")) if messages else ""


def _words(text: str) -> list[str]:
    return text.split()[:_WORDS]


def _shown(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "" if not line else repr(line if len(line) <= _SHOWN else line[:_SHOWN] + "…")
