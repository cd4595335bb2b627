"""Every error agentflow raises on purpose, in one tree.

    AgentflowError
    ├── UsageError                 you asked for something that cannot be done
    │   ├── ConfigError            agentflow.toml or an AGENTFLOW_* variable is wrong
    │   ├── SourceError            a source given to a job cannot be read
    │   │   └── FetchRefused       the address of a page is one we do not visit
    │   ├── CassetteMiss           a replayed run asks what was never recorded
    │   ├── NotServed              no rung of a cascade can, or may, serve what a call needs
    │   ├── UnknownModel           a cascade names a model that no table defines
    │   ├── UnpricedModel          a model has no price, and nobody said that it is free
    │   ├── UnprofiledModel        joules are limited, and nothing is known of a model's hardware
    │   ├── UnknownJob             there is no job of this id, for whoever asks
    │   ├── JobStateConflict       the job is in a state that does not allow it
    │   └── KeyReused              an idempotency key was used for another request
    ├── BudgetExceeded             a limit leaves no room for the next call
    └── RunError                   the run failed although the request was sound
        ├── CallFailed             every rung of a cascade was tried, none gave a valid reply
        ├── LedgerError            the ledger could not record: nothing may be spent without it
        │   └── HeldElsewhere      another process is making this very attempt now
        ├── JobStoreError          the database of jobs, or the store of their files, cannot be used
        ├── JobFailed              a job that was waited for failed, or was cancelled
        ├── ApiError               a server of ours answered a client with an error that has no other class
        ├── CassetteUnwritable     an exchange could not be recorded
        ├── CounterLost            an energy counter can no longer be read
        ├── GridUnavailable        a live provider of grid figures gave none that can be used
        └── BackendError           a model server failed
            ├── BackendUnavailable nothing was generated: safe to try again, nothing to pay
            ├── BackendTimeout     no full reply in time; what it cost is not known
            ├── ConnectionDropped  the reply broke off; what it cost is not known
            ├── BadReply           the server answered something that is not a reply
            ├── RequestRejected    the server refused the request; asking again will not help
            └── ContextOverflow    the prompt is longer than the model's context

A message has three parts: what happened, with figures; what was asked; what to do. It fits on one
line, because the command line prints it as it stands. Secrets never reach a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "AgentflowError",
    "ApiError",
    "BackendError",
    "BackendTimeout",
    "BackendUnavailable",
    "BadReply",
    "BudgetExceeded",
    "CallFailed",
    "CassetteMiss",
    "CassetteUnwritable",
    "ConfigError",
    "ConnectionDropped",
    "ContextOverflow",
    "CounterLost",
    "EffectInDoubt",
    "FetchRefused",
    "GridUnavailable",
    "HeldElsewhere",
    "JobFailed",
    "JobStateConflict",
    "JobStoreError",
    "KeyReused",
    "LedgerError",
    "NotDone",
    "NotServed",
    "Refusal",
    "RequestRejected",
    "RunError",
    "SourceError",
    "UnknownJob",
    "UnknownModel",
    "UnpricedModel",
    "UnprofiledModel",
    "UsageError",
]


class AgentflowError(Exception):
    """The root: catch this to catch everything agentflow raises on purpose."""


class UsageError(AgentflowError):
    """You asked for something that cannot be done: the message says what to change."""


class ConfigError(UsageError):
    """agentflow.toml or an AGENTFLOW_* variable is wrong; the message names the place."""


class SourceError(UsageError):
    """A source is missing, empty, broken, encrypted, binary or too large."""


class FetchRefused(SourceError):
    """A page's address is private, loopback, link-local or not http(s)."""


class CassetteMiss(UsageError):
    """A replayed run asks what is not on its cassette. Nothing was sent; no other rung is asked in its place."""


class NotServed(UsageError):
    """No rung of a cascade can serve what a call needs (images, tools, residency ...). Nothing was sent."""


class UnknownModel(UsageError):
    """A cascade or a call names a model that the configuration does not define."""


class UnpricedModel(UsageError):
    """A model has no known price. Unknown is never free: give ``price =`` in its table."""


class UnprofiledModel(UsageError):
    """Joules are limited, but nothing is known of a model's hardware. Unknown is never free: give ``energy =``."""


class UnknownJob(UsageError):
    """There is no job of this id, or it is another tenant's: the two look the same."""


class JobStateConflict(UsageError):
    """The job is in a state that does not allow what was asked; the message names the state."""


class EffectInDoubt(UsageError):
    """Something that must not be done twice was cut off in the middle: a person has to find out whether it was done."""


class KeyReused(UsageError):
    """An idempotency key came again with another request."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a hold was refused: amounts as text, in the currency's own unit (tokens, dollars, joules ...).

    ``left`` is the same as a number, in the unit the meter counts in (tokens, nano-dollars, microjoules, micrograms,
    calls, seconds): the most that would have been granted. ``closed`` says why the node grants nothing at all.
    """

    currency: str
    node: str
    limit: str
    spent: str
    held: str
    asked: str
    left: float = 0.0
    closed: str = ""


class BudgetExceeded(AgentflowError):
    """A limit leaves no room for the next call. Raised before the call leaves, never after.

    ``refusal`` names the currency, the node of the budget tree that refused, and the figures.
    """

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        if refusal.closed:
            text = f"Budget closed: {refusal.node} {refusal.closed}. Give it new limits to go on."
        else:
            text = (
                f"Budget exceeded: {refusal.node} has spent {refusal.spent} of {refusal.limit} "
                f"(and holds {refusal.held}); the next call needs up to {refusal.asked}. "
                f"Raise the limit on {refusal.currency}, or allow cheaper rungs."
            )
        super().__init__(text)


class RunError(AgentflowError):
    """The run failed although the request was sound."""


class CallFailed(RunError):
    """Every rung that the budget allowed was tried, and none gave a valid reply."""


class NotDone(RunError):
    """Raise this from what ``once`` runs, to say that it was not done: it may be tried again."""


class LedgerError(RunError):
    """The ledger could not read or record. What it does not record may not be spent, so nothing was sent."""


class HeldElsewhere(LedgerError):
    """Another process is making this very attempt now. It would be paid for twice if this one made it too."""


class JobStoreError(RunError):
    """The database of jobs, or the store of their files, cannot be read or written. Nothing is half written."""


class JobFailed(RunError):
    """A job whose result was asked for has none: it failed, or was cancelled."""


class ApiError(RunError):
    """A server of ours, asked by ``agentflow.Client``, answered with an error, or with nothing.

    ``status`` is the HTTP status, 0 when there was no answer; ``problem`` the whole answer (RFC 9457).
    """

    status: int = 0
    retry_after_s: float | None = None
    problem: Mapping[str, object] = MappingProxyType({})


class CassetteUnwritable(RunError):
    """An exchange could not be recorded: a run that was to be recorded is not. The call is charged all the same."""


class CounterLost(RunError):
    """An energy counter that was readable no longer is. Windows across it have no figure, and say why."""


class GridUnavailable(RunError):
    """A live provider of carbon or prices is down, slow, out of date or talks nonsense; a yearly average serves."""


class BackendError(RunError):
    """A model server failed.

    ``sent`` tells whether the request may have reached the model: if it did, its cost is unknown and
    the attempt is charged at its worst case; if it did not, the hold is released in full.
    """

    sent: bool = True


class BackendUnavailable(BackendError):
    """Nothing was generated: the server refused the connection, is overloaded (429) or is down (503).

    ``retry_after_s`` is how long the server asked to be left alone, when it said so. ``lasting`` tells that asking
    again will not help: its name is not known, or its certificate not trusted.
    """

    sent = False
    retry_after_s: float | None = None
    lasting: bool = False


class BackendTimeout(BackendError):
    """No full reply within the time allowed."""


class ConnectionDropped(BackendError):
    """The connection broke before the reply was whole."""


class BadReply(BackendError):
    """The server answered with something that is not a chat completion."""


class RequestRejected(BackendError):
    """The server refused the request (400, 401, 403, 404, 422): sending it again will not help."""

    sent = False


class ContextOverflow(RequestRejected):
    """The prompt and the reply do not fit the model's context."""
