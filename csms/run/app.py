"""The whole central system, and a bridge by itself. Nesting is the order of start and stop: last in, first out."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec import Struct

from csms.adapter import EVERY_GENERATION, Adapter
from csms.api.deps import Api
from csms.api.health import Check, HealthReport
from csms.core.reports import Repair
from csms.db import admission
from csms.mqtt.config import BrokerAddress
from csms.node import reconciler
from csms.node.ledger import Ledger
from csms.ocpp import data_transfer
from csms.ocpp.listeners import TlsListener
from csms.ocpp.operator_repair import repaired_report
from csms.ocpp.request_schema import check_request
from csms.ocpp.server import OcppServer
from csms.plans.planner import Planner
from csms.rental import payments
from csms.run import data_dir
from csms.run.assembly import Company, Mqtt, assemble, database_address
from csms.run.config import price_input
from csms.run.http import http
from csms.run.security import Secured, organization, secure
from csms.run.sockets import listening
from csms.security.renewal import Renewal
from csms.settings import Settings

log = structlog.get_logger()


class Running(Struct, frozen=True, kw_only=True):
    """Where a running csms can be reached."""

    ocpp: str
    ocpp_tls: str | None = None
    http: str
    mqtt: str
    database: str
    admin_token: str
    token_is_new: bool


class Ports(Struct, frozen=True, kw_only=True):
    """The listening sockets, bound before the loop runs."""

    ocpp: socket.socket
    http: socket.socket
    ocpp_tls: socket.socket | None = None


def bind(settings: Settings, *, or_next: bool = False) -> Ports:
    """Take the ports. Raises StartError when one is taken (`or_next`: take the next free one instead)."""
    return Ports(
        ocpp=listening(
            settings.csms_ocpp_host,
            settings.csms_ocpp_port,
            what="charge points (OCPP)",
            variable="CSMS_OCPP",
            or_next=or_next,
        ),
        http=listening(
            settings.csms_http_host,
            settings.csms_http_port,
            what="API and console (HTTP)",
            variable="CSMS_HTTP",
            or_next=or_next,
        ),
        ocpp_tls=None
        if settings.csms_ocpp_tls_port is None
        else listening(
            settings.csms_ocpp_host,
            settings.csms_ocpp_tls_port,
            what="charge points (OCPP over TLS)",
            variable="CSMS_OCPP_TLS",
            or_next=or_next,
        ),
    )


async def serve(
    settings: Settings,
    database_url: str,
    broker: BrokerAddress | None,
    ports: Ports,
    *,
    stop: asyncio.Event,
    ready: Callable[[Running], None],
    bridges: Sequence[Adapter] = (),
) -> None:
    """Run one node until `stop` is set or a part of it fails for good (then that exception is raised)."""
    async with AsyncExitStack() as stack:
        company = Company(stack)
        parts = await assemble(settings, database_url, broker, stack, company)
        engine, ledger, router = parts.engine, parts.ledger, parts.router
        if settings.csms_infer_stop_after_s:
            await company.start(
                reconciler.run(engine, ledger.record, settings.csms_infer_stop_after_s), "reconciler"
            )
        data_transfer.REGISTRY.load_entry_points()

        secured = secure(settings, engine)
        renewal = Renewal(
            engine,
            settings.csms_node,
            router.send,
            days_before=settings.csms_certificate_renew_days,
            kept_days=settings.csms_security_event_retention_days,
            authority=secured.authority,
            organization=organization(settings),
            server_directory=secured.server_directory,
        )
        renewal.renew_server_certificates(datetime.now(UTC))
        await company.start(renewal.run(), "renewal")

        async def hang_up(charger_id: str) -> None:
            held_by = await admission.holder(engine, charger_id)
            if held_by is not None:
                await router.hang_up(held_by, charger_id, EVERY_GENERATION)

        async def book(charger_id: str, action: str, payload: dict[str, Any], repair: Repair) -> Any:
            report = repaired_report(charger_id, action, payload, repair, datetime.now(UTC))
            return await ledger.record(report)

        planner = Planner(
            engine,
            parts.node,
            router.send,
            price_input(settings),
            currency=settings.csms_prices_currency or settings.csms_currency,
            zone=settings.csms_time_zone,
            mqtt=parts.mqtt is not None,
        )
        parts.watchers.append(lambda _charger_id: planner.nudge())
        await company.start(planner.run(), "planner")

        token, new = _admin_token(settings)
        api = Api(
            engine=engine,
            send=router.send,
            check_command=lambda action, payload: [
                str(problem) for problem in check_request(action, payload)
            ],
            admin_token=token,
            hang_up=hang_up,
            authority=secured.authority,
            health=lambda: _health(ledger, parts.mqtt),
            queued=parts.delivery.nudge,
            book=book,
            planned=planner.nudge,
        )
        await stack.enter_async_context(
            http(
                api,
                ports.http,
                company,
                parts.node,
                provider=payments.provider(settings.csms_rental_payments),
            )
        )

        server = OcppServer(
            sock=ports.ocpp,
            max_frame_bytes=settings.csms_ocpp_max_frame_bytes,
            ping_interval_s=settings.csms_ocpp_ping_interval_s,
            silence_s=settings.csms_ocpp_silence_s,
            calls_after_s=settings.csms_ocpp_calls_after_s,
            enrollment=settings.csms_enrollment,
            tls=_tls_listener(ports, secured),
            security=secured.stations,
            rules=secured.rules,
        )
        for adapter in (server, *bridges):
            await company.start(adapter.run(parts.node), type(adapter).__name__)
        await server.listening.wait()
        ready(
            Running(
                ocpp=f"ws://{_address(ports.ocpp)}/",
                ocpp_tls=f"wss://{_address(ports.ocpp_tls)}/" if ports.ocpp_tls is not None else None,
                http=f"http://{_address(ports.http)}/",
                mqtt=broker.url if broker is not None else "off",
                database=database_address(engine),
                admin_token=token,
                token_is_new=new,
            )
        )
        await company.until(stop)
        log.info("stopping")
    if company.failed.done():
        company.failed.result()


async def serve_bridge(
    settings: Settings,
    database_url: str,
    broker: BrokerAddress | None,
    adapter: Adapter,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None],
) -> None:
    """Run one bridge in a node of its own, without OCPP and HTTP, until `stop` is set or a part fails for good.

    `ready` gets the database's address.
    """
    async with AsyncExitStack() as stack:
        company = Company(stack)
        parts = await assemble(settings, database_url, broker, stack, company)
        await company.start(adapter.run(parts.node), type(adapter).__name__)
        ready(database_address(parts.engine))
        await company.until(stop)
        log.info("stopping")
    if company.failed.done():
        company.failed.result()


def _tls_listener(ports: Ports, secured: Secured) -> TlsListener | None:
    if ports.ocpp_tls is None or secured.tls is None:
        return None
    return TlsListener(sock=ports.ocpp_tls, context=secured.tls.context, watch=secured.tls.watch)


def _health(ledger: Ledger, mqtt: Mqtt | None) -> HealthReport:
    away_s = ledger.away_s()
    checks = [
        Check(
            name="ledger",
            state="failing" if away_s > 10 else "degraded",
            detail=f"Postgres has been away for {away_s:.0f} s; reports wait.",
        )
        if away_s
        else Check(name="ledger", detail="Reports are made durable.")
    ]
    if mqtt is not None:
        relay = mqtt.relay.health()
        checks.append(
            Check(name="mqtt", detail="Connected.")
            if relay.connected and mqtt.link.connected
            else Check(
                name="mqtt",
                state="degraded",
                detail=(mqtt.link.last_error if relay.connected else relay.problem) or "Not connected.",
            )
        )
        if relay.connected and not mqtt.commands.connected:
            why = mqtt.commands.last_error or "Not connected."
            checks.append(
                Check(
                    name="commands",
                    state="degraded",
                    detail=f"Commands to chargers of other nodes wait: {why}",
                )
            )
        late = f"{relay.pending} events wait, the oldest for {relay.oldest_age_s:.0f} s."
        if relay.dead:
            late += f" {relay.dead} are parked, as the broker refuses them: see `csms events parked`, mend the cause, then `csms events revive`."
        checks.append(
            Check(name="outbox", state="degraded" if relay.lagging or relay.dead else "ok", detail=late)
        )
    return HealthReport(tuple(checks))


def _admin_token(settings: Settings) -> tuple[str, bool]:
    if settings.csms_admin_token is not None:
        return settings.csms_admin_token.get_secret_value(), False
    return data_dir.admin_token(data_dir.data_dir(settings.csms_data_dir))


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "127.0.0.1": "localhost", "::": "localhost"}.get(host, host)
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
