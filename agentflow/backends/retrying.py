"""When a request that surely generated nothing is sent again: after a random wait, or when the server says.

Only ``BackendUnavailable`` is tried again: of any other failure nobody knows whether it cost something. Imports errors.
"""

from __future__ import annotations

import datetime
import email.utils
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay

from agentflow.errors import BackendUnavailable

Reply = TypeVar("Reply")

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 8.0


async def retried(send: Callable[[], Awaitable[Reply]], retries: int, timeout_s: float | None) -> Reply:
    """Send a request, and again while it surely generated nothing.

    A wait that would not end within the request's own time is not begun: the last failure is told at once, as one that
    cost nothing.

    Args:
        send: one try.
        retries: after the first try.
        timeout_s: seconds of the whole request, which the caller bounds; None is without end.

    Returns:
        What ``send`` returned.

    Raises:
        BackendError: what the last try raised.
    """
    started = time.monotonic()
    try:
        return await send()
    except BackendUnavailable as error:
        if retries == 0 or not _is_worth_it(error):
            raise
        failed: BackendUnavailable | None = error

    # Only a call that has failed pays for what keeps count of tries; its first failure is the first that it counts.
    async def again() -> Reply:
        nonlocal failed
        if failed is not None:
            first, failed = failed, None
            raise first
        return await send()

    counted = stop_after_attempt(retries + 1)
    left_s = None if timeout_s is None else timeout_s - (time.monotonic() - started)
    tries = AsyncRetrying(
        retry=retry_if_exception(_is_worth_it),
        stop=counted if left_s is None else counted | stop_before_delay(left_s),
        wait=_wait_s,
        reraise=True,
    )
    return await tries(again)


def retry_after_s(value: str, now: datetime.datetime) -> float | None:
    """A Retry-After header (RFC 9110, 10.2.3) in seconds from ``now``; None when it is neither seconds nor a date."""
    if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
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
