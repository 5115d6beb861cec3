"""Health and metrics, for machines: outside /api/v1, without a token."""

import time

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest

from csms.api.models import CheckOut, HealthOut
from csms.api.security import Context
from csms.db import network_views
from csms.db.outages import is_away
from csms.service.context import ServiceContext

_KEPT_S = 5.0


class Gauges:
    """What /metrics says of the database's content, asked at most every five seconds."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._up = self._gauge(
            "csms_database_up", "Whether the database answered the last time it was asked."
        )
        self._gauges = {
            "chargers_connected": self._gauge("csms_chargers_connected", "Chargers connected to any node."),
            "transactions_open": self._gauge("csms_transactions_open", "Transactions that have not ended."),
            "outbox_events": self._gauge(
                "csms_outbox_events",
                f"Events the broker has not taken yet; counted up to {network_views.MOST_COUNTED}.",
            ),
            "quarantine_open": self._gauge(
                "csms_quarantine_open", "Messages in quarantine that wait for an operator."
            ),
            "audit_differing_transactions": self._gauge(
                "csms_audit_differing_transactions",
                "Transactions that the last nightly audit found to differ, and that were not revised since.",
            ),
            "audit_last_success": self._gauge(
                "csms_audit_last_success_timestamp_seconds",
                "When the last nightly audit ended, in Unix time; NaN before the first.",
            ),
        }
        self._asked_at = float("-inf")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

    async def render(self, context: ServiceContext) -> bytes:
        if time.monotonic() - self._asked_at > _KEPT_S:
            self._asked_at = time.monotonic()
            await self._ask(context)
        return generate_latest(self._registry)

    async def _ask(self, context: ServiceContext) -> None:
        try:
            async with context.engine.connect() as db:
                figures = await network_views.gauges(db)
        except Exception as error:
            if not is_away(error):
                raise
            self._up.set(0)
            for gauge in self._gauges.values():
                gauge.set(float("nan"))
            return
        self._up.set(1)
        for name, figure in figures.items():
            self._gauges[name].set(float("nan") if figure is None else float(figure))


def probes() -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/health/live")
    async def live() -> HealthOut:
        """The process runs and its loop turns."""
        return HealthOut(status="ok", checks=[])

    @router.get("/health/ready", responses={503: {"model": HealthOut}})
    async def ready(context: Context, response: Response) -> HealthOut:
        """Whether this node can take chargers: 503 when not; `degraded` is 200 with the reasons."""
        report = await context.condition()
        response.status_code = 503 if report.state == "failing" else 200
        return HealthOut(
            status=report.state, checks=[CheckOut.model_validate(check) for check in report.checks]
        )

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(request: Request, context: Context) -> Response:
        """Prometheus."""
        gauges: Gauges = request.state.gauges
        content = generate_latest(REGISTRY) + await gauges.render(context)
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    return router
