"""A real OpenAI-compatible server in its own process, scripted by each test.

A test owns a namespace ``/t/<id>``: it posts a script, calls ``/t/<id>/v1/...``, and reads back what was asked.
A script gives each model a list of steps, used in order; the last one repeats. A step may have:

    text | json | tool_calls   the reply
    responder                  "quoting" (quotes the first passage) or "planning" (repeats the question)
    by_prompt                  replies as JSON by words of the prompt: the first whose words stand in it
    usage                      exactly this usage object; omit_usage: none at all
    logprobs                   a list of log-probabilities, sent when asked for
    tokens                     the same with texts: [text, log-probability, [[other text, log-probability], ...]] each
    extra                      more fields of the reply (timings, energy_joules)
    status, error, retry_after an error instead of a reply
    gate                       wait until the test releases this gate
    gate_chunk                 wait for this gate before each chunk, from chunk number gate_from on
    delay                      seconds before the reply; for benchmarks: a test opens a gate instead
    drop_after                 close the connection after so many chunks
    garbage                    these bytes instead of a reply
    sse                        this text as the stream, byte for byte
    long_line                  a stream whose first line has so many bytes
    model                      the name that the reply says it is of
    whole                      the whole reply at once, though a stream was asked for
    lingering                  after [DONE] the stream stays open until the test releases the gate "end"

``/t/<id>/pages`` takes pages by their path (``/props``, ``/version``, ``/metrics``, ``/v1/models``), as text or JSON;
null is a page that never comes.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass
class Namespace:
    steps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    pages: dict[str, Any] = field(default_factory=dict)
    visits: list[str] = field(default_factory=list)
    disconnects: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self, model: str) -> dict[str, Any]:
        steps = self.steps.get(model) or self.steps.get("*") or [{"text": "hello"}]
        return steps.pop(0) if len(steps) > 1 else steps[0]


SPACES: dict[str, Namespace] = defaultdict(Namespace)


def text_of(step: dict[str, Any], body: dict[str, Any]) -> str:
    if "responder" in step:
        return json.dumps(
            RESPONDERS[step["responder"]](body["messages"][-1]["content"], body["messages"][1]["content"])
        )
    if "by_prompt" in step:
        prompt = body["messages"][1]["content"]
        return json.dumps(next(reply for words, reply in step["by_prompt"].items() if words in prompt))
    return json.dumps(step["json"]) if "json" in step else step.get("text", "")


def quoting(_: str, prompt: str) -> dict[str, Any]:
    passage = re.search(r"\[P1\][^\n]*\n(.*?)(?:\n\n\[P2\]|\n\nQuestion: )", prompt, re.DOTALL)
    assert passage is not None
    sentences = re.findall(r"[A-Z][^.!?#\n]{20,}[.!?]", passage.group(1))
    quote = sentences[0]
    return {"answered": True, "claims": [{"text": quote, "question": 1, "citations": [{"passage": 1, "quote": quote}]}]}


def planning(_: str, prompt: str) -> dict[str, Any]:
    question = re.findall(r"^Question: (.*)$", prompt, re.MULTILINE)[-1]
    return {"sub_questions": [question]}


RESPONDERS = {"quoting": quoting, "planning": planning}


async def chat(request: web.Request) -> web.StreamResponse:
    space = SPACES[request.match_info["space"]]
    body = await request.json()
    space.requests.append({"headers": dict(request.headers), "body": body})
    space.asked.set()
    step = space.step(body["model"])
    try:
        if "gate" in step:
            await space.gates[step["gate"]].wait()
        if "delay" in step:
            await asyncio.sleep(step["delay"])
        if "status" in step:
            headers = {"Retry-After": str(step["retry_after"])} if "retry_after" in step else {}
            return web.json_response(
                step.get("error", {"error": {"message": "scripted"}}), status=step["status"], headers=headers
            )
        if "garbage" in step:
            return web.Response(body=step["garbage"].encode(), content_type="application/json")
        if "sse" in step or "long_line" in step:
            return await raw_stream(request, step)
        return await (stream if body.get("stream") and not step.get("whole") else whole)(request, body, step)
    except (asyncio.CancelledError, ConnectionResetError):
        space.disconnects += 1
        raise


def envelope(body: dict[str, Any], step: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": step.get("model", body["model"]),
        **more,
    }


def usage_of(body: dict[str, Any], step: dict[str, Any], text: str) -> dict[str, Any] | None:
    if step.get("omit_usage"):
        return None
    if "usage" in step:
        return step["usage"]
    prompt = sum(len(json.dumps(m["content"])) - 2 for m in body["messages"]) // 4 + 1
    reply = len(text) // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}


def logprobs_of(body: dict[str, Any], step: dict[str, Any]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    if "tokens" in step:
        wanted = body.get("top_logprobs", 0)
        return {"content": [token_of(text, p, others, wanted) for text, p, others in step["tokens"]]}
    if "logprobs" not in step:
        return None
    return {"content": [{"token": "x", "logprob": p, "top_logprobs": []} for p in step["logprobs"]]}


def token_of(text: str, logprob: float, others: list[list[Any]], wanted: int) -> dict[str, Any]:
    top = [{"token": other, "logprob": p} for other, p in others[:wanted]]
    return {"token": text, "logprob": logprob, "top_logprobs": top}


async def whole(request: web.Request, body: dict[str, Any], step: dict[str, Any]) -> web.Response:
    text = text_of(step, body)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if "tool_calls" in step:
        message["tool_calls"] = step["tool_calls"]
    choice = {"index": 0, "message": message, "finish_reason": step.get("finish_reason", "stop")}
    if logprobs := logprobs_of(body, step):
        choice["logprobs"] = logprobs
    more: dict[str, Any] = {"choices": [choice], **step.get("extra", {})}
    if usage := usage_of(body, step, text):
        more["usage"] = usage
    return web.json_response(envelope(body, step, **more))


async def stream(request: web.Request, body: dict[str, Any], step: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)

    async def send(**more: Any) -> None:
        chunk = envelope(body, step, **more) | {"object": "chat.completion.chunk"}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())

    text = text_of(step, body)
    parts = [text[i : i + 40] for i in range(0, len(text), 40)] or [""]
    for number, call in enumerate(step.get("tool_calls", [])):
        for piece in call_pieces(number, call):
            await send(choices=[{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}])
    for number, part in enumerate(parts):
        if step.get("drop_after") == number:
            request.transport.abort() if request.transport else None
            return response
        if "gate_chunk" in step and number >= step.get("gate_from", 0):
            await SPACES[request.match_info["space"]].gates[step["gate_chunk"]].wait()
        delta: dict[str, Any] = {"index": 0, "delta": {"content": part}, "finish_reason": None}
        if number == 0 and (logprobs := logprobs_of(body, step)):
            delta["logprobs"] = logprobs
        await send(choices=[delta])
    await send(choices=[{"index": 0, "delta": {}, "finish_reason": step.get("finish_reason", "stop")}])
    usage = usage_of(body, step, text)
    if usage and (body.get("stream_options") or {}).get("include_usage"):
        await send(choices=[], usage=usage, **step.get("extra", {}))
    await response.write(b"data: [DONE]\n\n")
    if step.get("lingering"):
        await SPACES[request.match_info["space"]].gates["end"].wait()
    return response


def call_pieces(number: int, call: dict[str, Any]) -> list[dict[str, Any]]:
    """A tool call as servers stream it: its name first, then its arguments a few characters at a time."""
    arguments = call["function"]["arguments"]
    head = {**call, "index": number, "function": {"name": call["function"]["name"], "arguments": ""}}
    pieces = [arguments[i : i + 3] for i in range(0, len(arguments), 3)]
    return [head, *({"index": number, "function": {"arguments": piece}} for piece in pieces)]


async def raw_stream(request: web.Request, step: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if "long_line" in step:
        await response.write(b"data: ")
        for _ in range(step["long_line"] // 50_000):
            await response.write(b"x" * 50_000)
    await response.write(step.get("sse", "\n\n").encode())
    return response


async def script(request: web.Request) -> web.Response:
    SPACES[request.match_info["space"]].steps = await request.json()
    return web.json_response({})


async def set_pages(request: web.Request) -> web.Response:
    SPACES[request.match_info["space"]].pages = await request.json()
    return web.json_response({})


async def page(request: web.Request) -> web.StreamResponse:
    space = SPACES[request.match_info["space"]]
    path = f"/{request.match_info['page']}"
    space.visits.append(path)
    if path not in space.pages:
        return await models(request) if path == "/v1/models" else web.Response(status=404)
    found = space.pages[path]
    if found is None:
        await asyncio.Event().wait()
    return web.Response(text=found) if isinstance(found, str) else web.json_response(found)


async def requests(request: web.Request) -> web.Response:
    space = SPACES[request.match_info["space"]]
    return web.json_response({"requests": space.requests, "disconnects": space.disconnects, "visits": space.visits})


async def first_request(request: web.Request) -> web.Response:
    await SPACES[request.match_info["space"]].asked.wait()
    return web.json_response({})


async def release(request: web.Request) -> web.Response:
    SPACES[request.match_info["space"]].gates[request.match_info["gate"]].set()
    return web.json_response({})


async def models(request: web.Request) -> web.Response:
    names = SPACES[request.match_info["space"]].steps
    return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


async def serve() -> None:
    app = web.Application(client_max_size=64_000_000)
    app.router.add_post("/t/{space}/script", script)
    app.router.add_get("/t/{space}/requests", requests)
    app.router.add_get("/t/{space}/asked", first_request)
    app.router.add_post("/t/{space}/release/{gate}", release)
    app.router.add_post("/t/{space}/v1/chat/completions", chat)
    app.router.add_post("/t/{space}/pages", set_pages)
    app.router.add_get("/t/{space}/{page:v1/models|props|version|metrics}", page)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


class ServerProcess:
    """The server, started and stopped by the test session."""

    def __init__(self, module: str = __name__) -> None:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen([sys.executable, "-m", module], cwd=root, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class ScriptedServer:
    """One test's own namespace on the server."""

    def __init__(self, process: ServerProcess) -> None:
        self._base = f"{process.address}/t/{uuid.uuid4().hex}"
        self.url = f"{self._base}/v1"

    def script(self, steps: dict[str, list[dict[str, Any]]]) -> None:
        self._post("script", steps)

    def pages(self, pages: dict[str, Any]) -> None:
        self._post("pages", pages)

    def visits(self) -> list[str]:
        return self._get()["visits"]

    def requests(self) -> list[dict[str, Any]]:
        return self._get()["requests"]

    def wait_for_request(self) -> None:
        """Wait until a first request has come."""
        urllib.request.urlopen(f"{self._base}/asked", timeout=10).close()

    def disconnects(self) -> int:
        return self._get()["disconnects"]

    def release(self, gate: str) -> None:
        self._post(f"release/{gate}", {})

    def _get(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._base}/requests", timeout=10) as reply:
            return json.load(reply)

    def _post(self, path: str, data: Any) -> None:
        body = json.dumps(data).encode()
        request = urllib.request.Request(f"{self._base}/{path}", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()


if __name__ == "__main__":
    asyncio.run(serve())
