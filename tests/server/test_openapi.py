"""The OpenAPI document: whole, with examples, and nothing that it allows or forbids makes the server fail."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from agentflow.jobs.effort import EFFORTS
from tests.servers.api import PROJECT, Api
from tests.servers.openai_server import ScriptedServer

QUICK = settings(
    max_examples=8, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)  # fmt: skip
# A stream of a job that exists ends only with the job; its tests are elsewhere.
ENDLESS = "GET /v1/research/{id}/events"


def test_every_operation_says_what_it_does_and_what_goes_wrong(api: Api) -> None:
    with api.client() as http:
        document = http.get("/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) >= 30
    for operation in operations:
        assert operation["summary"] and operation["description"], operation["operationId"]
        assert "application/problem+json" in operation["responses"]["default"]["content"]
    schemas = document["components"]["schemas"]
    for name in ("ResearchRequest", "ProblemBody", "CollectionRequest"):
        assert schemas[name]["example"]
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_every_operation_has_examples_that_fit(api: Api) -> None:
    with api.client() as http:
        document = http.get("/openapi.json").json()
    bodies = 0
    for operations in document["paths"].values():
        for operation in operations.values():
            contents = [operation.get("requestBody", {}).get("content", {})]
            contents += [r.get("content", {}) for s, r in operation["responses"].items() if s.startswith("2")]
            for content in contents:
                if "application/json" in content:
                    bodies += 1
                    _fits(document, content["application/json"], operation["operationId"])
    assert bodies >= 30


def _fits(document: dict[str, Any], content: dict[str, Any], operation: str) -> None:
    schema: dict[str, Any] = content["schema"]
    there = schema if "$ref" not in schema else document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    shown = content.get("example") or there.get("example") or (schema.get("examples") or [None])[0]
    assert shown is not None, f"{operation} has no example"
    whole = {**schema, "components": document["components"]}
    found = sorted(jsonschema.Draft202012Validator(whole).iter_errors(shown), key=str)
    assert not found, (operation, found[0].message, list(found[0].path))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_makes_the_server_fail(api: Api, models: ScriptedServer, mode: GenerationMode) -> None:
    models.script({"*": [{"text": "yes"}]})
    tried = 0
    with requests.Session() as session:
        for result in schemathesis.openapi.from_url(f"{api.url}/openapi.json").get_all_operations():
            assert isinstance(result, Ok)
            operation = result.ok()
            if operation.label != ENDLESS:
                tried += _attack(operation, mode, session)
    assert tried > 100
    assert api.process.poll() is None


def _attack(operation: Any, mode: GenerationMode, session: requests.Session) -> int:
    """Send what fits the document, or what does not; how often."""
    sent = 0

    @QUICK
    @given(case=operation.as_strategy(mode))
    def attack(case: Any) -> None:
        nonlocal sent
        body = case.body
        if isinstance(body, dict) and body.get("background") and body.get("stream"):
            # It ends only when a worker has made it; its tests are elsewhere.
            return
        response = case.call(session=session)
        sent += 1
        # A model that gives no valid reply is the one thing that is not the server's fault.
        assert response.status_code < 500, (case.as_curl_command(), response.text)

    try:
        attack()
    except Exception as error:
        # Some operations have nothing that could be wrong.
        if type(error).__name__ not in ("Unsatisfiable", "SkipTest", "Skipped"):
            raise
    return sent


def test_the_documentation_names_every_call_and_every_effort(api: Api) -> None:
    with api.client() as http:
        paths = http.get("/openapi.json").json()["paths"]
    page = (PROJECT / "docs" / "api.md").read_text("utf-8")
    # A table may name two calls at once, the second by the end of its path alone.
    told = page.replace("`, `/", "` `/")
    for path in paths:
        tail = path.removeprefix("/v1/research/{id}") if path.startswith("/v1/research/{id}/") else path
        assert f"{tail}`" in told, path
    for name, profile in EFFORTS.items():
        limits = profile.budget
        assert limits.tokens and limits.joules and limits.seconds
        row = f"| `{name}` | {limits.usd:.2f} | {limits.tokens:,} | {limits.joules:,.0f} | {limits.seconds:,.0f} |"
        assert row in page, row
