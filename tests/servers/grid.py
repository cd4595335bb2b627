"""A server that speaks like Electricity Maps and like NESO, in its own process. The zone says how it behaves.

Figures are made. ``GET /asked`` tells the last request's path, query and token.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

ASKED: dict[str, Any] = {}
BODIES: dict[str, Any] = {
    "TEXT": {"carbonIntensity": "many"},
    "NEGATIVE": {"carbonIntensity": -5},
    "ENDLESS": {"carbonIntensity": 10**400},
    "HUGE": {"carbonIntensity": 1e9},
    "TRUE": {"carbonIntensity": True},
    "NOWHEN": {"datetime": "yesterday"},
    "NOTIME": {"datetime": None},
    "STALE": {"datetime": f"{datetime.now(UTC) - timedelta(hours=9):%Y-%m-%dT%H:00:00.000Z}"},
    "ELSEWHERE": {"zone": "FR"},
    "DIRECT": {"emissionFactorType": "direct"},
    "PAID": {"value": -20.0},
    "NOUNIT": {"unit": None},
    "DEAR": {"value": 1e9, "unit": "USD/MWh"},
    "NOVALUE": {"value": "dear", "unit": "USD/MWh"},
    "SURE": {"isEstimated": False},
}


async def maps(request: web.Request) -> web.StreamResponse:
    ASKED.update(path=request.path, query=dict(request.query), token=request.headers.get("auth-token"))
    zone = request.query["zone"]
    if zone == "DOWN":
        return web.json_response({"error": "down"}, status=503)
    if zone == "SLOW":
        await asyncio.Event().wait()
    if zone == "MOVED":
        return web.Response(status=302, headers={"Location": "/v3/carbon-intensity/latest?zone=DE"})
    if zone == "HTML":
        return web.Response(text="<html>", content_type="text/html")
    if zone == "LIST":
        return web.json_response([1])
    if zone == "DEEP":
        return web.Response(text="[" * 200_000, content_type="application/json")
    if zone == "LONG":
        return web.Response(text='{"a": "' + "x" * 2_000_000 + '"}', content_type="application/json")
    when = request.query.get("datetime") or f"{datetime.now(UTC):%Y-%m-%dT%H:00:00.000Z}"
    body = {
        "zone": zone, "carbonIntensity": 302, "datetime": when, "updatedAt": when,
        "emissionFactorType": request.query.get("emissionFactorType"), "isEstimated": True,
        "value": 80.0, "unit": "EUR/MWh",
    } | BODIES.get(zone, {})  # fmt: skip
    return web.json_response(body)


async def neso(request: web.Request) -> web.Response:
    ASKED.update(path=request.path)
    moment = request.match_info["moment"]
    half_hour = {"from": moment, "to": moment, "intensity": {"forecast": 266, "actual": 263, "index": "moderate"}}
    if moment.startswith("2020-01-02"):
        half_hour["intensity"] = {"forecast": 200, "actual": None, "index": "moderate"}
    if moment.startswith("2020-01-03"):
        return web.json_response({"data": []})
    if moment.startswith("2020-01-04"):
        return web.json_response({"data": [half_hour | {"intensity": "low"}]})
    if moment.startswith("2020-01-05"):
        return web.json_response({"error": {"code": "400 Bad Request", "message": "made"}}, status=400)
    return web.json_response({"data": [half_hour]})


async def asked(_: web.Request) -> web.Response:
    return web.json_response(ASKED)


async def serve() -> None:
    app = web.Application()
    app.router.add_get("/v3/carbon-intensity/{which}", maps)
    app.router.add_get("/v3/price-day-ahead/{which}", maps)
    app.router.add_get("/intensity/{moment}", neso)
    app.router.add_get("/asked", asked)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
