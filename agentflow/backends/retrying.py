"""When a request that surely generated nothing is sent again: after a random wait, or when the server says.

Only ``BackendUnavailable`` is tried again: of any other failure nobody knows whether it cost something. Imports errors.
"""

from __future__ import annotations

import datetime
import email.utils
import random
import re
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay

from agentflow.errors import BackendUnavailable

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 8.0


def attempts(retries: int, timeout_s: float | None) -> AsyncRetrying:
    """The tries of one request, as tenacity counts them.

    A try whose wait would not end within the request's own time is not waited for: the last failure is told at once,
    as one that cost nothing.

    Args:
        retries: after the first try.
        timeout_s: seconds of the whole request; None is without end.

    Example::

        async for attempt in attempts(retries=2, timeout_s=30):
            with attempt:
                return await send()
    """
    counted = stop_after_attempt(retries + 1)
    return AsyncRetrying(
        retry=retry_if_exception(_is_worth_it),
        stop=counted if timeout_s is None else counted | stop_before_delay(timeout_s),
        wait=_wait_s,
        reraise=True,
    )


def retry_after_s(value: str, now: datetime.datetime) -> float | None:
    """A Retry-After header (RFC 9110, 10.2.3) in seconds from ``now``; None when it is neither seconds nor a date."""
    if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max((date - now).total_seconds(), 0.0)


def full_jitter_s(tries: int) -> float:
    """A random wait between nothing and a cap that doubles with each try, so that clients do not come back together.

    Source: M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015 ("full jitter").
    """
    # No secret rests on it.
    return random.uniform(0.0, min(_FIRST_WAIT_S * 2 ** min(tries - 1, 30), _LONGEST_WAIT_S))


def _is_worth_it(error: BaseException) -> bool:
    return isinstance(error, BackendUnavailable) and not error.lasting and (error.retry_after_s or 0) <= _LONGEST_WAIT_S


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, BackendUnavailable) else None
    return full_jitter_s(state.attempt_number) if asked is None else asked
