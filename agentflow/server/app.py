"""The app: routers, errors, what is opened at its start and closed at its end. Imports the rest of this folder.

Example:
    >>> app = create_app(load_settings(), open=True)                        # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from agentflow.config import Settings
from agentflow.errors import AgentflowError
from agentflow.jobs.collections.catalogue import Catalogue
from agentflow.jobs.collections.uploads import Uploads
from agentflow.jobs.opening import open_database, open_jobs, open_store
from agentflow.jobs.tenants import Tenants
from agentflow.research.retrieval_rung import embed_as_configured
from agentflow.runtime import Runtime
from agentflow.server import collections, examples, health
from agentflow.server.access import Door
from agentflow.server.guard import Guard, Scope
from agentflow.server.keys import Keys
from agentflow.server.metrics import Metrics
from agentflow.server.openai import chat, embeddings, kept_responses, models, responses
from agentflow.server.openai.asking import local_tenant
from agentflow.server.openai.stored import Responses
from agentflow.server.opening import open_annex
from agentflow.server.pace import open_pace
from agentflow.server.problems import (
    INVALID,
    INVALID_FIELDS,
    MEDIA,
    MEDIA_TYPE,
    METHOD,
    NOT_FOUND,
    TIMED_OUT,
    TOO_LARGE,
    UNAVAILABLE,
    Fault,
    Kind,
    Problem,
    ProblemBody,
)
from agentflow.server.research import controlling, efforts, estimating, reading, submitting
from agentflow.server.research.idempotency import Idempotency
from agentflow.server.state import Server
from agentflow.server.webhooks.outbox import Outbox

_BY_STATUS: Final = {400: INVALID, 404: NOT_FOUND, 405: METHOD, 408: TIMED_OUT, 413: TOO_LARGE}
_ADVICE: Final = {
    400: "Send one JSON object, in UTF-8, of no great depth.",
    404: "See the documentation of the API for its addresses.",
}
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})
_log = logging.getLogger("agentflow.server")
_SWEEP_S: Final = 600.0
_SHOWN_FAULTS: Final = 20
_ROUTERS: Final = (
    health.router, models.router, embeddings.router, kept_responses.router, submitting.router, estimating.router,
    controlling.router, reading.router, efforts.router,
)  # fmt: skip
_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "What went wrong",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
    }
}


def create_app(settings: Settings, *, open: bool) -> FastAPI:
    """The API as an ASGI app; nothing is opened before it starts.

    Args:
        settings: the configuration.
        open: whether requests without a key are admitted while no key was ever made.
    """

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            app.state.server = server = await _open(settings, stack, open=open, app=app)
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(server.webhooks.run()),
                    group.create_task(_sweep(server)),
                    group.create_task(kept_responses.retire_responses(server)),
                ]
                yield
                for task in beside:
                    task.cancel()

    app = _Api(
        title="agentflow", version="1", lifespan=life, docs_url=None, redoc_url=None, responses=_PROBLEM,
        max_body_size=settings.server.max_body_kb * 1_024, telemetry={"auto_configure": False},
        summary="Jobs with a budget, and any OpenAI client over the cascade and the meter.",
        generate_unique_id_function=lambda route: route.name, redirect_slashes=False,
    )  # fmt: skip
    app.state.stopping, app.state.metrics = asyncio.Event(), Metrics()
    for router in _ROUTERS:
        app.include_router(router)
    # A picture inside a message is written in base64.
    pictures = int(settings.server.max_image_mb * 1_000_000 * 4 / 3)
    for router in (chat.router, responses.router):
        app.include_router(router, max_body_size=settings.server.max_body_kb * 1_024 + pictures)
    # An upload has the bounds of multipart around it.
    app.include_router(collections.router, max_body_size=int(settings.server.max_upload_mb * 1_000_000) + 16_384)
    _answer_errors(app)

    def answered(scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        template = route.path if isinstance(route, APIRoute) else "(none)"
        app.state.metrics.answered(scope["method"], template, status, seconds)

    app.add_middleware(
        Guard, pause_s=settings.server.body_timeout_s, header_bytes=settings.server.max_header_kb * 1_024,
        answered=answered,
    )  # fmt: skip
    return app


class _Api(FastAPI):
    """FastAPI, whose document says what errors look like here."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        schemas: dict[str, Any] = document["components"]["schemas"]
        if "ProblemBody" not in schemas:
            problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}), ProblemBody=problem)
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    _exemplify(operation)
        return document


def _exemplify(operation: dict[str, Any]) -> None:
    """Show what an operation may be asked, and what it answers."""
    id = operation["operationId"]
    asked = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if asked is not None and id in examples.REQUESTS:
        asked["example"] = examples.REQUESTS[id]
    for status, response in operation["responses"].items():
        answered = response.get("content", {}).get("application/json")
        if answered is not None and status.startswith("2") and id in examples.ANSWERS:
            answered["example"] = examples.ANSWERS["get_research" if status == "202" and id == "get_result" else id]


async def _open(settings: Settings, stack: contextlib.AsyncExitStack, *, open: bool, app: FastAPI) -> Server:
    """Everything that requests share; the stack closes it, the last first."""
    annex = open_annex(settings)
    stack.push_async_callback(annex.aclose)
    jobs = await stack.enter_async_context(open_jobs(settings))
    tenants = Tenants(open_database(settings.jobs))
    stack.push_async_callback(tenants.aclose)
    runtime = Runtime(settings)
    runtime.other_tenants = tenants.limits
    embed_as_configured(runtime)
    stack.push_async_callback(runtime.aclose)
    bounds = settings.server
    catalogue, store = Catalogue(open_database(settings.jobs)), open_store(settings.jobs.store)
    stack.push_async_callback(catalogue.aclose)
    stack.push_async_callback(store.aclose)
    uploads = Uploads(catalogue, store, runtime, bounds)
    outbox = Outbox(annex, jobs, tenants, allow_private=bounds.allow_private)
    return Server(
        settings, runtime, jobs, annex, tenants, Idempotency(annex), outbox, catalogue, uploads, Responses(annex),
        Door(Keys(annex), open_pace(annex), bounds.requests_per_minute, open=open), local_tenant(), app.state.metrics,
        app.state.stopping,
    )  # fmt: skip


async def _sweep(server: Server) -> None:
    """Forget, now and then, what need not be kept."""
    while True:
        try:
            await server.webhooks.sweep()
            await server.idempotency.sweep()
        except AgentflowError as error:
            _log.warning("%s It is tidied up later.", error)
        await asyncio.sleep(_SWEEP_S)


def _answer_errors(app: FastAPI) -> None:
    """Every error becomes a problem."""

    @app.exception_handler(Problem)
    async def said(_: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(AgentflowError)
    async def ours(request: Request, error: AgentflowError) -> Response:
        request.app.state.server.refused(error)
        return Problem.of(error).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _invalid(error, request.headers.get("content-type", "")).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return _no_such_method(request).response()
        if isinstance(error.__cause__, OSError):
            return _no_room(error.__cause__).response()
        kind = _BY_STATUS.get(error.status_code) or Kind("http", "The request cannot be served", error.status_code)
        detail = f"{error.detail}. {_ADVICE.get(error.status_code, 'See the documentation of the API.')}"
        return Problem(kind, detail, headers=dict(error.headers or {})).response()

    @app.exception_handler(OSError)
    async def system(_: Request, error: OSError) -> Response:
        return _no_room(error).response()

    del said, ours, invalid, http, system


def _no_room(error: OSError) -> Problem:
    """What it is to a client that this machine has no room, or no file, left; any other error is a defect."""
    if error.errno not in _NO_ROOM:
        raise error
    _log.error("No room: %s", error)
    return Problem(UNAVAILABLE, "The server has no room for this now. Nothing of it was kept: ask again later.", 60.0)


def _no_such_method(request: Request) -> Problem:
    """What may be done at this path."""
    template = getattr(request.scope.get("route"), "path", "")
    offered = ", ".join(sorted(request.app.openapi()["paths"].get(template, {}))).upper()
    return Problem(METHOD, f"{template} knows {offered}.", headers={"Allow": offered})


def _invalid(error: RequestValidationError, media_type: str) -> Problem:
    """Every field that is wrong, without what was sent in it."""
    found = error.errors()
    if any(one["loc"] == ("body",) and isinstance(one.get("input"), bytes) for one in found):
        said = f"'{media_type[:80]}'" if media_type else "of no type"
        return Problem(MEDIA, f"The body is {said}. Send JSON, with the header Content-Type: application/json.")
    if any(one["type"] == "json_invalid" for one in found):
        return Problem(INVALID, "The body is not valid JSON. Send one JSON object, in UTF-8.")
    faults = tuple(
        Fault(field=".".join(str(part) for part in one["loc"] if part != "body"), message=_words(one))
        for one in found[:_SHOWN_FAULTS]
    )
    first = faults[0]
    more = f" ({len(found) - 1} more to mend after it)" if len(found) > 1 else ""
    return Problem(INVALID_FIELDS, f"{first.field or 'body'}: {first.message}{more}.", faults=faults)


def _words(found: Any) -> str:
    return str(found["msg"]).removeprefix("Value error, ")


__all__ = ["ProblemBody", "create_app"]
