"""The CALLs of charge points: decode, record, answer. One that belongs to a transaction is always acknowledged."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import structlog
from prometheus_client import Counter, Histogram

from csms.adapter import AdapterHost
from csms.core import reports
from csms.core.masking import masked_frame
from csms.errors import NotAdmitted
from csms.ocpp import call_handlers, messages
from csms.ocpp.certificate_signing import CertificateSigning
from csms.ocpp.connection import ChargePointConnection
from csms.ocpp.deviation_reports import record_deviations
from csms.ocpp.frames import CallFrame, UnusableFrame
from csms.ocpp.quirks import observations
from csms.ocpp.shared_identities import IdentityWatch

log = structlog.get_logger()
_CALLS = Counter(
    "csms_ocpp_calls_total", "Calls of charge points, by action and outcome.", ["action", "outcome"]
)
_SECONDS = Histogram("csms_ocpp_call_seconds", "From a call's arrival to its answer.", ["action"])
_counted = lru_cache(maxsize=1000)(_CALLS.labels)
_timed = lru_cache(maxsize=100)(_SECONDS.labels)
# Counted and kept in the log of frames; a log line each would cost as much as the rest of the call.
_FREQUENT: Final = {"Heartbeat", "MeterValues", "StartTransaction", "StatusNotification", "StopTransaction"}
# Their handlers get them as they came: vendors' data may be keys, and a certificate request is none.
_UNMASKED: Final = {"DataTransfer", "SignCertificate"}
_ALWAYS: Final = {"BootNotification", "Heartbeat", "SecurityEventNotification"}


class IncomingCalls:
    """Puts the answer to each CALL into the connection's session; the caller sends it."""

    def __init__(self, node: AdapterHost, certificates: CertificateSigning, watch: IdentityWatch) -> None:
        self._node = node
        self._watch = watch
        self._certificates = certificates

    async def answer(
        self, connection: ChargePointConnection, call: CallFrame, *, secret: bool = False
    ) -> None:
        """Answer a CALL. `secret`: its frame has secrets, which do not go into what is recorded."""
        began = time.perf_counter()
        action, message_id = call.action, call.message_id
        context = call_handlers.CallContext(
            connection.charger_id, message_id, bytes(call.payload), datetime.now(UTC), connection.behaviours
        )
        handler = call_handlers.CALL_HANDLERS.get(action)
        readable = masked_frame(context.payload) if secret and action not in _UNMASKED else context.payload
        decoded = messages.decode(action, readable, zone=connection.zone)
        if call.deviations or decoded.deviations:
            await record_deviations(
                self._node,
                connection.charger_id,
                action,
                (*call.deviations, *decoded.deviations),
                payload=call.payload,
                wait=handler is None or handler.report is None,
            )
        if not await self._admitted(connection, action):
            connection.session.refuse(
                message_id, "SecurityError", "This charge point has not been accepted yet."
            )
            outcome = "SecurityError"
        elif isinstance(decoded, messages.Unreadable):
            outcome = await self._refused(connection, context, action, decoded.code, decoded.description)
        elif handler is None:
            outcome = await self._refused(
                connection, context, action, "NotImplemented", f"{action} is not implemented"
            )
        else:
            outcome = await self._handled(connection, context, action, handler, decoded.message)
        connection.has_called = True
        spent_s = time.perf_counter() - began
        _counted(action if handler else "unknown", outcome).inc()
        _timed(action if handler else "unknown").observe(spent_s)
        if action not in _FREQUENT or outcome == "quarantined":
            log.info(
                "call_answered",
                charger=connection.charger_id,
                action=action,
                id=context.stored_id,
                outcome=outcome,
                ms=round(spent_s * 1000, 1),
            )

    async def _handled(
        self,
        connection: ChargePointConnection,
        context: call_handlers.CallContext,
        action: str,
        handler: call_handlers.CallHandler,
        message: Any,
    ) -> str:
        try:
            answer: Any = None
            if action == "SignCertificate":
                answer = await self._certificates.requested(connection, message.csr)
            elif handler.report is not None:
                answer = await self._record(context, action, handler.report(context, message))
                if isinstance(answer, reports.Kept):
                    return self._acknowledge(connection, context, action, answer)
        except Exception as error:
            log.exception("call_failed", charger=connection.charger_id, action=action)
            if action in messages.TRANSACTION_ACTIONS:
                return await self._quarantined(
                    connection, context, action, f"{type(error).__name__}: {error}"
                )
            connection.session.refuse(
                context.message_id, "InternalError", "The central system failed; it has logged why."
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
            serial = message.charge_point_serial_number or message.charge_box_serial_number
            await self._watch.booted(connection, serial, time.monotonic())
            known = list(observations(connection.behaviours))
            if connection.behaviours.local_time_zone and answer.time_zone is None:
                detail = "It sends local time without a zone, read as UTC: set this charger's time zone."
                known.append(reports.Deviation(field="timeZone", kind="time_zone_unset", detail=detail))
            await record_deviations(self._node, connection.charger_id, action, known)
        connection.session.answer(context.message_id, messages.encode(handler.response(context, answer)))
        status = getattr(answer, "status", None) or getattr(
            getattr(answer, "authorization", None), "status", None
        )
        return str(status or "answered")

    async def _refused(
        self,
        connection: ChargePointConnection,
        context: call_handlers.CallContext,
        action: str,
        code: str,
        description: str,
    ) -> str:
        """A CALLERROR, except for what belongs to a transaction."""
        if action in messages.TRANSACTION_ACTIONS:
            return await self._quarantined(connection, context, action, description)
        connection.session.refuse(context.message_id, code, description)
        return code

    async def _quarantined(
        self,
        connection: ChargePointConnection,
        context: call_handlers.CallContext,
        action: str,
        error: str,
        *,
        answerable: bool = True,
    ) -> str:
        """Keep what cannot be booked and acknowledge it: an error could make the charge point forget a session."""
        quarantined = call_handlers.quarantined(context, action, error)
        kept = await self._record(context, action, quarantined, error)
        outcome = self._acknowledge(connection, context, action, kept, answerable=answerable)
        if outcome != "quarantined":
            return outcome
        log.error(
            "message_quarantined",
            charger=connection.charger_id,
            action=action,
            error=error,
            answered=answerable,
            remedy="Repair or resolve it: GET /api/v1/quarantine, or the console's quarantine page.",
        )
        return "quarantined"

    async def _record(
        self,
        context: call_handlers.CallContext,
        action: str,
        report: reports.Report[Any],
        error: str | None = None,
    ) -> Any:
        """Record a report. If the charge point is not accepted its transactions are deferred: then the answer is Kept.

        Until that is recorded an operator may have accepted the charge point, and the other way round.
        """
        while True:
            try:
                return await self._node.record(report)
            except NotAdmitted:
                readable = None if isinstance(report, reports.Quarantined) else report
                deferred = call_handlers.deferred(context, action, readable, error)
            kept = await self._node.record(deferred)
            if kept.deferred:
                return kept

    @staticmethod
    def _acknowledge(
        connection: ChargePointConnection,
        context: call_handlers.CallContext,
        action: str,
        kept: reports.Kept,
        *,
        answerable: bool = True,
    ) -> str:
        """Answer a message that is kept; what became of it."""
        if answerable:
            connection.session.answer(context.message_id, call_handlers.acknowledged(action, kept))
        if kept.full:
            log.warning(
                "deferred_messages_full",
                charger=connection.charger_id,
                action=action,
                remedy="Accept or reject this charger: further messages are acknowledged, counted and dropped.",
            )
        if not kept.deferred:
            return "quarantined"
        return "dropped" if kept.dropped else "deferred"

    async def rescue(self, connection: ChargePointConnection, malformed: UnusableFrame, frame: bytes) -> None:
        """Keep and acknowledge a frame that cannot be read although it tells of a transaction.

        Without a message id it cannot be answered: the evidence is all that can be had.
        """
        assert malformed.action is not None
        context = call_handlers.CallContext(
            connection.charger_id, malformed.message_id or "", frame, datetime.now(UTC)
        )
        await self._quarantined(
            connection,
            context,
            malformed.action,
            malformed.description,
            answerable=malformed.message_id is not None,
        )

    async def _admitted(self, connection: ChargePointConnection, action: str) -> bool:
        """Before a charge point is accepted only its boot, what we asked for, and its transactions are taken.

        An operator may have accepted it since its last boot, and not every charge point can be asked to boot again.
        """
        if (
            connection.accepted
            or action in _ALWAYS
            or action in messages.TRANSACTION_ACTIONS
            or action in connection.triggered
        ):
            return True
        try:
            known = await self._node.admission(connection.charger_id)
        except Exception:
            return False  # the database is away
        connection.accepted = known is not None and known.enrollment == "Accepted"
        return connection.accepted
