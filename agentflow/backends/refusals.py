"""What a server's refusal, or its silence, means: statuses and broken connections as our errors. Imports errors.

The difference that money rests on: whether the model may have generated something.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import socket
import ssl
from typing import Any, Final, cast

import aiohttp

from agentflow.backends.retrying import retry_after_s
from agentflow.errors import (
    BackendError,
    BackendUnavailable,
    BadReply,
    ConnectionDropped,
    ContextOverflow,
    RequestRejected,
)

_CONTEXT: Final = re.compile(r"context|too long|maximum.{0,20}length|exceed_context", re.IGNORECASE)
_SECRET: Final = re.compile(r"(sk-|Bearer\s+)[\w.\-]+", re.IGNORECASE)


def refusal(status: int, body: bytes, retry_after: str, where: str, model: str) -> BackendError:
    """The error that a status other than 200 is.

    Args:
        status: of the response.
        body: of the response.
        retry_after: its header of this name; empty when there is none.
        where: the server's address.
        model: that was asked.
    """
    said = said_in(_json_or_text(body))
    told = f"{where} answered {status} for '{model}': {said}"
    if status in (502, 504):
        # A gateway says so of a server that may have generated everything before it was lost.
        return ConnectionDropped(f"{told}. What it cost is not known.")
    if status in (429, 503):
        error = BackendUnavailable(f"{told}. Try later, or another rung.")
        error.retry_after_s = retry_after_s(retry_after, datetime.datetime.now(datetime.UTC))
        return error
    if status in (400, 413) and _CONTEXT.search(said):
        return ContextOverflow(f"{told}. Shorten the prompt, or name a model with a longer context.")
    if status in (401, 403):
        return RequestRejected(f"{told}. Set the key in the variable named by api_key_env.")
    if 300 <= status < 400:
        return RequestRejected(f"{told}. It sends elsewhere, where no key is sent: set base_url to that address.")
    if 400 <= status < 500:
        return RequestRejected(f"{told}. Check the model's name and base_url.")
    return BackendError(f"{told}. Look at the server's log.")


def broken(error: Exception, where: str, *, answered: bool) -> BackendError:
    """The error that a connection's failure is.

    Args:
        error: aiohttp's, or the operating system's.
        where: the server's address.
        answered: whether the reply had begun.
    """
    if isinstance(error, (ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError)):
        failed = BackendUnavailable(
            f"{where} shows a certificate that is not trusted ({_certificate(error)}); nothing was sent. "
            "Check base_url, or add its authority to the file named by SSL_CERT_FILE."
        )
        failed.lasting = True
        return failed
    if not answered and isinstance(error.__cause__, aiohttp.ClientConnectionResetError):
        # The connection was kept from an earlier call, and was closed before all of this one was written.
        stale = BackendUnavailable(f"{where} had closed the connection. Try again.")
        stale.retry_after_s = 0.0
        return stale
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        failed = BackendUnavailable(f"The name of {where} is not known ({cause(error)}). Check base_url.")
        failed.lasting = getattr(error.os_error, "errno", None) == socket.EAI_NONAME
        return failed
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return BackendUnavailable(f"{where} does not speak TLS as it should ({cause(error)}). Check base_url.")
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return BackendUnavailable(f"{where} does not answer ({cause(error)}). Is the server running?")
    if isinstance(error, (aiohttp.ClientResponseError, aiohttp.InvalidURL)):
        return BadReply(f"{where} sent something that is not HTTP ({type(error).__name__}). Check base_url.")
    when = "in the middle of its reply" if answered else "before it replied"
    return ConnectionDropped(f"{where} closed the connection {when}. Look at the server's log.")


def said_in(body: Any) -> str:
    """An error body as one short printable line without keys."""
    found = body
    for _ in range(8):
        if not isinstance(found, dict):
            break
        inner = cast("dict[str, Any]", found)
        found = inner.get("error") or inner.get("message") or inner.get("detail") or json.dumps(inner)
    line = "".join(c if c.isprintable() else " " for c in str(found)[:2_000])
    return _SECRET.sub("…", " ".join(line.split()))[:200] or "nothing"


def cause(error: BaseException) -> str:
    """What the operating system says of a failure, or else its kind."""
    inner = getattr(error, "os_error", None) or error
    number = getattr(inner, "errno", None)
    if isinstance(inner, socket.gaierror):
        return str(inner.strerror)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(inner).__name__


def _certificate(error: Exception) -> str:
    inner = getattr(error, "certificate_error", error)
    return str(getattr(inner, "verify_message", "") or type(inner).__name__)


def _json_or_text(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")
