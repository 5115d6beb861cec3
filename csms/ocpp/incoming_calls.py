"""One call of a charge point: decode, record, answer. What belongs to a transaction is always acknowledged."""

import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

import structlog
from msgspec import Raw
from msgspec.structs import replace
from prometheus_client import Counter, Histogram

from csms.adapter import AdapterHost
from csms.core import reports
from csms.core.masking import masked_frame
from csms.core.reports import Deviation
from csms.ocpp import call_handlers, messages
from csms.ocpp.certificate_signing import CertificateSigning
from csms.ocpp.connection import ChargePointConnection
from csms.ocpp.quirks import Behaviours, observations
from csms.ocpp.session import FrameDropped, IncomingCall

log = structlog.get_logger()
_CALLS = Counter(
    "csms_ocpp_calls_total", "Calls of charge points, by action and outcome.", ["action", "outcome"]
)
_SECONDS = Histogram("csms_ocpp_call_seconds", "From a call's arrival to its answer.", ["action"])
_counted = lru_cache(maxsize=1000)(_CALLS.labels)
_timed = lru_cache(maxsize=100)(_SECONDS.labels)
# Counted and kept in the log of frames; a line each would cost as much as the rest of the call.
_FREQUENT = {"Heartbeat", "MeterValues", "StartTransaction", "StatusNotification", "StopTransaction"}
_ALWAYS = {"BootNotification", "Heartbeat", "SecurityEventNotification"}


class IncomingCalls:
    """Puts an answer into the connection's session for each call; the server sends it."""

    def __init__(
        self,
        node: AdapterHost,
        clock: Callable[[], datetime],
        certificates: CertificateSigning | None = None,
    ) -> None:
        self._node = node
        self._clock = clock
        self._certificates = certificates

    async def answer(self, connection: ChargePointConnection, event: IncomingCall) -> None:
        """Decode, record, answer. Whatever happens, a call that belongs to a transaction is acknowledged."""
        began = time.perf_counter()
        action, message_id = event.action, event.message_id
        call = call_handlers.CallContext(
            connection.charger_id, message_id, bytes(event.payload), self._clock(), connection.behaviours
        )
        handler = call_handlers.CALL_HANDLERS.get(action)
        decoded = messages.decode(action, call.payload, zone=connection.zone)
        if event.deviations or decoded.deviations:
            found = as_reported(event.payload, *event.deviations, *decoded.deviations)
            await self.deviated(connection, action, found, wait=handler is None or handler.report is None)
        outcome = "answered"
        if not self._admitted(connection, action):
            connection.session.refuse(
                message_id, "SecurityError", "This charge point has not been accepted yet."
            )
            outcome = "SecurityError"
        elif isinstance(decoded, messages.Unreadable) or handler is None:
            outcome = await self._not_understood(connection, call, action, decoded)
        else:
            outcome = await self._handled(connection, call, action, handler, decoded.message)
        connection.has_called = True
        spent = time.perf_counter() - began
        _counted(action if handler else "unknown", outcome).inc()
        _timed(action if handler else "unknown").observe(spent)
        if action not in _FREQUENT or outcome == "quarantined":
            log.info(
                "call",
                charger=connection.charger_id,
                action=action,
                id=message_id,
                outcome=outcome,
                ms=round(spent * 1000, 1),
            )

    async def _handled(
        self,
        connection: ChargePointConnection,
        call: call_handlers.CallContext,
        action: str,
        handler: call_handlers.CallHandler,
        message: Any,
    ) -> str:
        try:
            answer: Any = None
            if action == "SignCertificate" and self._certificates is not None:
                answer = await self._certificates.requested(connection, message.csr)
            elif handler.report is not None:
                answer = await self._node.record(handler.report(call, message))
        except Exception as error:
            log.exception("call failed", charger=connection.charger_id, action=action)
            if action in messages.TRANSACTION_ACTIONS:
                return await self.quarantine(connection, call, action, f"{type(error).__name__}: {error}")
            connection.session.refuse(
                call.message_id, "InternalError", "The central system failed; it has logged why."
            )
            return "InternalError"
        if isinstance(answer, reports.Booted):
            connection.accepted = answer.status == "Accepted"
            connection.know(
                message.charge_point_vendor,
                message.charge_point_model,
                message.firmware_version,
                answer.time_zone,
            )
            if known := _known(connection.behaviours, answer.time_zone):
                await self.deviated(connection, action, known, wait=False)
        connection.session.answer(call.message_id, messages.encode(handler.response(call, answer)))
        status = getattr(answer, "status", None) or getattr(
            getattr(answer, "authorization", None), "status", None
        )
        return str(status or "answered")

    async def _not_understood(
        self, connection: ChargePointConnection, call: call_handlers.CallContext, action: str, decoded: Any
    ) -> str:
        unreadable = decoded if isinstance(decoded, messages.Unreadable) else None
        description = unreadable.description if unreadable else f"{action} is not implemented"
        if action in messages.TRANSACTION_ACTIONS:
            return await self.quarantine(connection, call, action, description)
        code = unreadable.code if unreadable else "NotImplemented"
        connection.session.refuse(call.message_id, code, description)
        return code

    async def quarantine(
        self, connection: ChargePointConnection, call: call_handlers.CallContext, action: str, error: str
    ) -> str:
        """Keep what cannot be booked and acknowledge it: an error could make the charge point forget a session."""
        kept = await self._node.record(call_handlers.quarantined(call, action, error))
        connection.session.answer(call.message_id, call_handlers.acknowledged(action, kept))
        log.warning("quarantined", charger=connection.charger_id, action=action, error=error)
        return "quarantined"

    async def rescue(self, connection: ChargePointConnection, event: FrameDropped, frame: bytes) -> None:
        """A frame that was dropped although it tells of a transaction: kept and acknowledged after all."""
        assert event.action is not None
        call = call_handlers.CallContext(connection.charger_id, event.message_id or "", frame, self._clock())
        if event.message_id is not None:
            await self.quarantine(connection, call, event.action, event.reason)
            return
        # Nothing to answer under: the evidence is all that can be had.
        await self._node.record(call_handlers.quarantined(call, event.action, event.reason))
        log.warning(
            "quarantined",
            charger=connection.charger_id,
            action=event.action,
            error=event.reason,
            answered=False,
        )

    @staticmethod
    def _admitted(connection: ChargePointConnection, action: str) -> bool:
        """Before a charge point is accepted only its boot, what we asked for, and its transactions are taken."""
        return (
            connection.accepted
            or action in _ALWAYS
            or action in messages.TRANSACTION_ACTIONS
            or action in connection.triggered
        )

    async def deviated(
        self, connection: ChargePointConnection, action: str, found: list[Deviation], *, wait: bool
    ) -> None:
        """`wait`: no other report follows, so a flood of nonsense is held up by its own commits."""
        report = reports.Deviated(charger_id=connection.charger_id, action=action, deviations=found)
        if wait:
            await self._node.record(report)
        else:
            self._node.post(report)


def _known(behaviours: Behaviours, time_zone: str | None) -> list[Deviation]:
    """What is known of this charge point beforehand, to be seen where its other deviations are."""
    found = list(observations(behaviours))
    if behaviours.local_time_zone and time_zone is None:
        detail = "It sends local time without a zone, read as UTC: set this charger's time zone."
        found.append(Deviation(field="timeZone", kind="time_zone_unset", detail=detail))
    return found


def as_reported(payload: Raw, *found: Deviation) -> list[Deviation]:
    """Deviations of a payload for the ledger; without examples if the payload holds a password."""
    raw = bytes(payload)
    return [replace(one, detail="") for one in found] if masked_frame(raw) != raw else list(found)
