"""The HTTP application: the REST interface under /api/v1, health and metrics beside it, the console below all."""

from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csms.api import (
    accounts,
    certificates,
    chargers,
    charging,
    commands,
    configuration,
    jobs,
    local_list,
    logs,
    outbox,
    plans,
    problems,
    quarantine,
    reservations,
    tags,
    tariffs,
    tokens,
    transactions,
)
from csms.api.health_and_metrics import Gauges, probes
from csms.api.models import ProblemOut
from csms.service import paths
from csms.service.context import ServiceContext

PREFIX = "/api/v1"
_LARGEST_BODY = 1024 * 1024
_OURS = ("/api", "/health", "/metrics")
_PROBLEM: dict[str, Any] = {
    "description": "What went wrong (RFC 9457)",
    "content": {"application/problem+json": {"schema": ProblemOut.model_json_schema()}},
}


def create_app(context: ServiceContext, *, console: ASGIApp | None = None) -> ASGIApp:
    """`console` serves every address that is none of ours."""
    app, own = _app(), {"context": context, "console": console, "gauges": Gauges()}

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = scope.get("state", {}) | own
        if scope["type"] == "http":
            scope["path"] = paths.as_sent(scope)
        await app(scope, receive, send)

    return served


@cache
def _app() -> FastAPI:
    """One for the process, shared by all applications in it: what FastAPI builds for the routes takes 0.1 s."""
    app = FastAPI(
        title="csms",
        summary="Central system for electric-car charge points",
        version=version("csms"),
        openapi_url=f"{PREFIX}/openapi.json",
        # Their pages would fetch their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    app.include_router(_v1())
    app.include_router(probes())
    app.router.default = _elsewhere
    app.add_middleware(_Envelope)
    return app


@cache
def _v1() -> APIRouter:
    v1 = APIRouter(prefix=PREFIX, responses={"default": _PROBLEM})
    v1.include_router(logs.router)
    v1.include_router(outbox.router)
    v1.include_router(certificates.router)
    for part in (commands, configuration, local_list, reservations, charging, plans, jobs):
        v1.include_router(part.router)
    v1.include_router(chargers.router)
    v1.include_router(transactions.router)
    v1.include_router(tags.router)
    v1.include_router(tokens.router)
    v1.include_router(accounts.router)
    v1.include_router(quarantine.router)
    v1.include_router(tariffs.router)
    return v1


async def _elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Where no route matches: the console, or nothing."""
    console: ASGIApp | None = None if scope["type"] == "lifespan" else scope["state"]["console"]
    if console is None or any(
        scope["path"] == ours or scope["path"].startswith(f"{ours}/") for ours in _OURS
    ):
        raise HTTPException(404)
    await console(scope, receive, send)


class _Envelope:
    """What holds for every request: bodies are bounded; answers are what they say, and kept only if they say so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > _LARGEST_BODY:
                raise HTTPException(413)
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, bounded, with_headers)
