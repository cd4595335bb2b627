"""A client of the HTTP API, for programs elsewhere: ``Client``, and ``AsyncClient`` for event loops.

``calls`` says what each call sends and what it reads, once for both; the models are the server's own.
"""

from agentflow.client.asynchronous import AsyncClient
from agentflow.client.synchronous import Client

__all__ = ["AsyncClient", "Client"]
