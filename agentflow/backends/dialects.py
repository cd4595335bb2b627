"""What servers of the OpenAI chat API add to it: vLLM's and llama-server's fields, and how to tell which one it is.

A plain server is sent nothing that it might refuse; the others are told more, each in its own words. Imports base,
untrusted, wire, messages. ``openai_http`` speaks with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from agentflow.backends.base import Dialect, ServerFacts
from agentflow.backends.untrusted import bounded, count, items, mapping, name
from agentflow.backends.wire import forced_alone
from agentflow.errors import BadReply
from agentflow.messages import Request

_LONGEST_PAGE: Final = 4_000_000
_NOTHING: Final[Mapping[str, Any]] = {}
# What each server calls itself in its list of models.
_OWNERS: Final[Mapping[str, Dialect]] = {"vllm": "vllm", "llamacpp": "llamacpp"}


def dressed(body: dict[str, Any], request: Request, dialect: Dialect) -> tuple[str, ...]:
    """Add to a request's body what it asks for in a dialect's own words.

    Args:
        body: as ``wire.request_json`` made it; changed in place.
        request: what is asked.
        dialect: of the server.

    Returns:
        What this dialect has no words for, of what was asked.
    """
    if dialect == "llamacpp":
        forced_alone(body, request)
    if dialect != "vllm":
        asked = (("priority", request.priority), ("cache_salt", request.cache_salt))
        return tuple(name for name, value in asked if value is not None)
    if request.schema is not None:
        # Small models go on with blanks for ever where blanks are allowed. The older guided_json is accepted by
        # current servers, and does nothing.
        del body["response_format"]
        body["structured_outputs"] = {"json": dict(request.schema.schema), "disable_any_whitespace": True}
    if request.priority is not None:
        body["priority"] = request.priority
    if request.cache_salt is not None:
        body["cache_salt"] = request.cache_salt
    return ()


def needs_words(request: Request) -> bool:
    """Whether a request would be sent otherwise in another dialect."""
    asked = (request.schema, request.priority, request.cache_salt, request.tool_choice.name)
    return any(one is not None for one in asked)


async def examine(
    session: aiohttp.ClientSession, base_url: str, model: str | None, headers: Mapping[str, str]
) -> ServerFacts:
    """Find out which server this is and what it can hold. Asks up to three pages; asks no model anything.

    Args:
        session: to ask with; the caller bounds the time.
        base_url: up to and including ``/v1``.
        model: the one whose facts are wanted; the first that the server lists when None.
        headers: with the key.

    Returns:
        What is known; a server that says nothing of itself speaks plain OpenAI.

    Raises:
        aiohttp.ClientError, OSError: the server does not answer.
        ValueError: its list of models is none.
    """
    listed = await _page(session, f"{base_url}/models", headers)
    if listed is None:
        raise ValueError("gives no list of its models")
    entries = {name(entry.get("id")) or "": entry for entry in items(listed.get("data"))}
    mine = entries.get(model or "") or next(iter(entries.values()), _NOTHING)
    facts = ServerFacts("openai", models=tuple(entries))
    dialect = _OWNERS.get(str(mine.get("owned_by")))
    root = _root(base_url)
    if dialect == "vllm":
        return replace(facts, dialect="vllm", context=count(mine.get("max_model_len")))
    props = await _page(session, f"{root}/props", headers)
    if dialect == "llamacpp" or (props is not None and "default_generation_settings" in props):
        context = count(_of(mine, "meta").get("n_ctx"))
        return _llamacpp(replace(facts, dialect="llamacpp", context=context), props or _NOTHING)
    # A vLLM behind a gateway that rewrites its list of models still says its version.
    version = await _page(session, f"{root}/version", headers)
    if version is not None and set(version) == {"version"} and "max_model_len" in mine:
        return replace(facts, dialect="vllm", context=count(mine.get("max_model_len")))
    return facts


def described(facts: ServerFacts) -> str:
    """What a server says of itself, in a few words; empty for a plain one.

    Example:
        >>> described(ServerFacts("vllm", context=512, running=3, waiting=0, cached_share=0.5))
        'vLLM, context 512, 3 running, 0 waiting, 50 % of prompt tokens from the cache'
    """
    parts = (
        {"openai": None, "vllm": "vLLM", "llamacpp": "llama.cpp"}[facts.dialect],
        facts.context and f"context {facts.context:,}",
        facts.slots and f"{facts.slots} slots",
        " and ".join(facts.modalities),
        "tools" if facts.tools else None,
        None if facts.running is None else f"{facts.running:g} running",
        None if facts.waiting is None else f"{facts.waiting:g} waiting",
        None if facts.cached_share is None else f"{facts.cached_share:.0%} of prompt tokens from the cache",
    )
    return ", ".join(part for part in parts if part).replace("%", " %")


def _llamacpp(facts: ServerFacts, props: Mapping[str, Any]) -> ServerFacts:
    settings = _of(props, "default_generation_settings")
    modalities = _of(props, "modalities")
    caps = _of(props, "chat_template_caps")
    tools = caps.get("supports_tools")
    return replace(
        facts,
        # Of one slot: a prompt never gets the others' share.
        context=count(settings.get("n_ctx")) or facts.context,
        slots=count(props.get("total_slots")),
        modalities=("text", *(name(one) or "" for one, there in modalities.items() if there is True)),
        tools=tools if isinstance(tools, bool) else None,
    )


def _of(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object within an object; an empty one where there is none."""
    return mapping(data.get(key)) or _NOTHING


async def _page(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    """A page of JSON; None when there is none such."""
    async with session.get(url, headers=headers, allow_redirects=False) as response:
        if response.status != 200:
            return None
        try:
            return mapping(json.loads(await bounded(response, _LONGEST_PAGE)))
        except (BadReply, ValueError, RecursionError):
            return None


def _root(base_url: str) -> str:
    """The server's address without ``/v1``, where its own pages are."""
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/").removesuffix("/v1"), "", ""))
