"""Entries and accounts as rows of a database: one order of columns for every kind. Imports base, account.

Every figure that a report adds up has a typed column; only what is read back whole is JSON.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final, cast

from agentflow.budget.account import Account
from agentflow.budget.currency import MICRO
from agentflow.budget.ledger.base import AccountState, Entry, EntryFilter, Labels, State
from agentflow.budget.spend import Emissions, Quote, Spend, microjoules
from agentflow.energy.interval import Energy, Provenance, Scope
from agentflow.errors import LedgerError, UsageError
from agentflow.messages import Completion, MeasuredJoules, Timings, Token, TokenUsage, ToolCall, UsageSource

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), default=str)
_NESTED: Final = ("usage", "timings", "tool_calls", "measured", "tokens")
_PLAIN: Final = tuple(field.name for field in fields(Completion) if field.name not in _NESTED)
_USAGE: Final = tuple(field.name for field in fields(TokenUsage))
_TIMINGS: Final = tuple(field.name for field in fields(Timings))
_LABELS: Final = tuple(field.name for field in fields(Labels))
_CURRENCIES: Final = ("tokens", "nano_usd", "microjoules", "micrograms", "calls")

OPENED: Final[Mapping[str, str]] = {
    "key": "text primary key",
    "node": "text not null",
    "accounts": "text not null",
    **dict.fromkeys(_LABELS, "text not null"),
    **{f"held_{currency}": "bigint not null" for currency in _CURRENCIES},
    "held_seconds": "double precision not null",
    "bound": "smallint not null",
    "run": "text not null",
    "token": "bigint not null",
    "opened_ms": "bigint not null",
}
# Written by ``judge`` alone, which does not look at the rest.
JUDGED: Final[Mapping[str, str]] = {"outcome": "text not null", "score": "double precision"}
CLOSED: Final[Mapping[str, str]] = {
    "state": "text not null",
    "closed_ms": "bigint",
    **{name: "bigint" for name in (
        "calls", "input", "output", "cached_input", "cache_write", "reasoning", "images", "audio_ms",
        "nano_usd", "microjoules", "microjoules_low", "microjoules_high",
        "micrograms", "micrograms_low", "micrograms_high", "in_doubt", "estimated", "overruns",
    )},
    "usage_source": "text",
    "provenance": "text",
    "scope": "text",
    "energy": "text",
    "seconds": "double precision",
    "first_token_s": "double precision",
    "replays": "bigint not null",
    "note": "text not null",
    "reply": "text",
}  # fmt: skip
ENTRY: Final[Mapping[str, str]] = {**OPENED, **JUDGED, **CLOSED}
ACCOUNT: Final[Mapping[str, str]] = {
    "id": "text primary key",
    **{f"limit_{currency}": "bigint" for currency in _CURRENCIES},
    **{f"held_{currency}": "bigint not null" for currency in _CURRENCIES},
    **{f"spent_{currency}": "bigint not null" for currency in _CURRENCIES},
    "closed": "text not null",
    "overruns": "bigint not null",
    "elapsed_s": "double precision not null",
}
# Entries are listed without their replies, which may be large.
LISTED: Final = tuple(name for name in ENTRY if name != "reply")


def opened_row(entry: Entry) -> tuple[Any, ...]:
    """The columns of ``OPENED``."""
    held, labels = entry.held, entry.labels
    return (
        entry.key, entry.node, _list_text(entry.accounts),
        labels.tenant, labels.job, labels.chain, labels.agent, labels.call, labels.cascade, labels.rung, labels.kind,
        labels.model,
        *held.amounts, held.seconds, int(held.bound),
        entry.run, entry.token, entry.opened_ms,
    )  # fmt: skip


def closed_row(entry: Entry) -> tuple[Any, ...]:
    """The columns of ``CLOSED``."""
    spend = entry.spend
    reply = None if entry.completion is None else reply_text(entry.completion)
    rest = (entry.first_token_s, entry.replays, entry.note, reply)
    if spend is None:
        return (entry.state, entry.closed_ms, *(None,) * 23, *rest)
    usage, energy, grams = spend.usage, spend.energy, spend.co2e
    return (
        entry.state, entry.closed_ms,
        spend.calls, usage.input, usage.output, usage.cached_input, usage.cache_write, usage.reasoning, usage.images,
        usage.audio_ms,
        spend.nano_usd, microjoules(energy.mean), microjoules(energy.low), microjoules(energy.high),
        grams.mean, grams.low, grams.high, spend.in_doubt, spend.estimated, spend.overruns,
        usage.source, energy.provenance, energy.scope, _energy_text(energy), spend.seconds,
        *rest,
    )  # fmt: skip


def entry_of(row: Sequence[Any]) -> Entry:
    """An entry from the columns of ``ENTRY``, or of ``LISTED``.

    Raises:
        LedgerError: the row is not one that this version wrote.
    """
    get = dict(zip(ENTRY, row, strict=False))
    try:
        return Entry(
            get["key"], get["node"],
            Quote(get["held_tokens"], get["held_nano_usd"], get["held_microjoules"], get["held_seconds"],
                  get["held_micrograms"], get["held_calls"], bool(get["bound"])),
            tuple(json.loads(get["accounts"])), Labels(*(get[name] for name in _LABELS)),
            cast("State", get["state"]), get["run"], get["token"], get["opened_ms"], get["closed_ms"],
            _spend(get), get["first_token_s"],
            None if get.get("reply") is None else reply_of(get["reply"]),
            get["outcome"], get["score"], get["replays"], get["note"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise LedgerError(
            f"The ledger's entry '{get.get('key')}' cannot be read: {error}. Was it written by another version?"
        ) from error


def full_row(entry: Entry) -> tuple[Any, ...]:
    """The columns of ``ENTRY``."""
    return (*opened_row(entry), entry.outcome, entry.score, *closed_row(entry))


def account_row(account: Account, elapsed_s: float) -> tuple[Any, ...]:
    """The columns of ``ACCOUNT``."""
    return (
        account.id, *account.limits, *account.held, *account.spent, account.closed, account.overruns, elapsed_s
    )  # fmt: skip


def account_of(row: Sequence[Any]) -> AccountState:
    """An account from the columns of ``ACCOUNT``."""
    account = Account(row[0])
    account.held = [int(amount) for amount in row[6:11]]
    account.spent = [int(amount) for amount in row[11:16]]
    tokens, nano_usd, micro, grams, calls = row[1:6]
    account.set_limits((tokens, nano_usd, micro, grams, calls))
    account.closed, account.overruns = row[16], row[17]
    return AccountState(account, row[18])


def conditions(which: EntryFilter, mark: str) -> tuple[str, list[Any]]:
    """A filter as SQL.

    Args:
        which: the filter.
        mark: how the database marks a parameter.

    Returns:
        What follows ``where``, and its parameters.
    """
    parts: list[str] = ["true"]
    values: list[Any] = []
    for name in ("tenant", "job", "chain", "agent", "model", "state"):
        value = getattr(which, name)
        if value is not None:
            parts.append(f"{name} = {mark}")
            values.append(value)
    for comparison, value in (("opened_ms >= ", which.since_ms), ("opened_ms < ", which.until_ms)):
        if value is not None:
            parts.append(comparison + mark)
            values.append(value)
    return " and ".join(parts), values


def _spend(get: Mapping[str, Any]) -> Spend | None:
    if get["calls"] is None:
        return None
    usage = TokenUsage(
        get["input"], get["output"], get["cached_input"], get["cache_write"], get["reasoning"],
        cast("UsageSource", get["usage_source"]), get["images"], get["audio_ms"],
    )  # fmt: skip
    assumed, median, coverage, basis = json.loads(get["energy"])
    energy = Energy(
        get["microjoules"] / MICRO, get["microjoules_low"] / MICRO, get["microjoules_high"] / MICRO,
        cast("Provenance", get["provenance"]), cast("Scope", get["scope"]), tuple(assumed), median, coverage,
        tuple((name, figure) for name, figure in basis),
    )  # fmt: skip
    grams = Emissions(get["micrograms"], get["micrograms_low"], get["micrograms_high"])
    return Spend(
        get["calls"], usage, get["nano_usd"], energy, get["seconds"], get["in_doubt"], grams,
        get["estimated"], get["overruns"],
    )  # fmt: skip


@functools.lru_cache(maxsize=1_000)
def _list_text(texts: tuple[str, ...]) -> str:
    return json.dumps(texts)


def _energy_text(energy: Energy) -> str:
    median = "null" if energy.median is None else repr(float(energy.median))
    basis = _ENCODER.encode(energy.basis) if energy.basis else "[]"
    return f"[{_list_text(energy.assumed)},{median},{float(energy.coverage)!r},{basis}]"


def reply_text(completion: Completion) -> str:
    """A completion as JSON text."""
    usage, timings = completion.usage, completion.timings
    # By hand, because copying every value first, as asdict does, takes longer than all the rest of a settle.
    data = {
        **{name: getattr(completion, name) for name in _PLAIN},
        "usage": {name: getattr(usage, name) for name in _USAGE},
        "timings": {name: getattr(timings, name) for name in _TIMINGS},
        "measured": None if completion.measured is None else asdict(completion.measured),
        "tool_calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in completion.tool_calls],
    }
    if completion.tokens is not None:
        data["tokens"] = [[token.text, token.logprob, token.top] for token in completion.tokens]
    return _ENCODER.encode(data)


def reply_of(text: str) -> Completion:
    """A completion from what ``reply_text`` wrote."""
    data: dict[str, Any] = json.loads(text)
    logprobs = data["logprobs"]
    data["usage"] = TokenUsage(**data["usage"])
    data["timings"] = Timings(**data["timings"])
    data["tool_calls"] = tuple(ToolCall(**call) for call in data["tool_calls"])
    if data["measured"] is not None:
        assumed = tuple(data["measured"].pop("assumed"))
        data["measured"] = MeasuredJoules(**data["measured"], assumed=assumed)
    data["logprobs"] = None if logprobs is None else tuple(logprobs)
    data["ignored"] = tuple(data.get("ignored", ()))
    if "tokens" in data:
        data["tokens"] = tuple(
            Token(text, logprob, tuple((other, p) for other, p in top)) for text, logprob, top in data["tokens"]
        )
    return Completion(**data)
