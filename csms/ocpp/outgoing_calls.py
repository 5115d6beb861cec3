"""The central system's CALLs to charge points: sent one at a time, answered, refused, given up or answered late.

`perform` waits for a future; the task that reads the connection resolves it. The charge point's own CALLs are never
delayed by one of ours (OCPP-J 1.6, 4.1.1).
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from websockets.exceptions import ConnectionClosed

from csms.adapter import AdapterHost, Command
from csms.aio import TaskSet, cause
from csms.core import reports
from csms.core.masking import masked
from csms.errors import (
    ChargerBusy,
    ChargerOffline,
    ChargerRefused,
    ChargerTimeout,
    CommandError,
    NotSupported,
    UnreadableAnswer,
)
from csms.ocpp import messages
from csms.ocpp.connection import ChargePointConnection
from csms.ocpp.credential_changes import CredentialChanges, change_in, plain_status
from csms.ocpp.deviation_reports import record_deviations
from csms.ocpp.session import CallAnswered, CallRefused

log = structlog.get_logger()
_TRIGGERS: Final = {"TriggerMessage", "ExtendedTriggerMessage"}
_TRIGGERED_AS: Final = {"SignChargePointCertificate": "SignCertificate"}


@dataclass(frozen=True, eq=False, slots=True)
class SentCommand:
    """A command and when it was handed to the session, which knows the call by it. Compared by identity."""

    command: Command
    at: datetime


@dataclass(frozen=True, eq=False)
class OutgoingCalls:
    """Sends commands to charge points.

    `calls_after_s`: of a charge point that sends no CALL, CALLs wait this long after the handshake.
    """

    node: AdapterHost
    changes: CredentialChanges
    tasks: TaskSet
    calls_after_s: float

    async def perform(self, connection: ChargePointConnection, command: Command) -> Mapping[str, Any]:
        """Call the charge point; the payload of its answer, secrets masked. Raises CommandError.

        One call is outstanding; the others wait their turn.
        """
        if command.action == "ChangeAvailability" and connection.behaviours.no_change_availability:
            raise NotSupported(
                f"{connection.charger_id} is of a kind that never answers ChangeAvailability; nothing was sent"
            )
        sent = SentCommand(command, datetime.now(UTC))
        change = change_in(command)
        if change is None:
            answer = await self._call(connection, sent)
        else:
            answer = await self.changes.perform(
                connection, change, sent, lambda: self._call(connection, sent)
            )
        return masked(answer.message)  # type: ignore[no-any-return]

    async def _call(
        self, connection: ChargePointConnection, sent: SentCommand
    ) -> messages.Decoded[dict[str, Any]]:
        command, charger_id = sent.command, connection.charger_id
        answer: asyncio.Future[messages.Decoded[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        connection.pending[sent] = answer
        if command.action in _TRIGGERS:
            requested = str(command.payload.get("requestedMessage"))
            connection.triggered.add(_TRIGGERED_AS.get(requested, requested))
        try:
            connection.session.call(
                command.action,
                msgspec.json.encode(command.payload),
                time.monotonic(),
                command.timeout_s,
                sent,
            )
            await connection.flush()
            async with asyncio.timeout(command.timeout_s * 2):
                await self._await_answer(connection, answer)
            return answer.result()
        except TimeoutError:
            if connection.session.cancel(sent):
                raise ChargerBusy(f"{charger_id} was busy: {command.action} was not sent") from None
            raise ChargerTimeout(f"{charger_id} did not answer {command.action} in time") from None
        finally:
            connection.pending.pop(sent, None)

    async def _await_answer(
        self, connection: ChargePointConnection, answer: "asyncio.Future[messages.Decoded[dict[str, Any]]]"
    ) -> None:
        """Wait, and keep the session's clock: each caller that waits gives up the outstanding call when it is due."""
        while not answer.done():
            deadline = connection.session.next_deadline()
            wait_s = 1.0 if deadline is None else min(max(deadline - time.monotonic(), 0.0), 1.0)
            await asyncio.wait({answer}, timeout=wait_s)
            self.tick(connection, time.monotonic())
            await connection.flush()

    def tick(self, connection: ChargePointConnection, now: float) -> None:
        """Give up what is due, and open the session for calls when no boot has come. Afterwards flush."""
        for late in connection.session.tick(now):
            error = ChargerTimeout(f"{connection.charger_id} did not answer {late.action} in time")
            _reject(connection, late.token, error)
        waited = now - connection.connected_at > self.calls_after_s
        may_boot = connection.behaviours.no_calls_before_boot and not connection.has_called
        if not waited or may_boot:
            return
        connection.session.open_for_calls(now)
        if connection.behaviours.no_boot_on_reconnect and not connection.has_booted:
            connection.has_booted = True  # it is asked once
            self.tasks.spawn(self._trigger_boot(connection), f"trigger {connection.charger_id}")

    @staticmethod
    def called(connection: ChargePointConnection, action: str, now: float) -> None:
        """Open the session for calls after an answer to a CALL: it has booted, or it is accepted and goes on as before.

        Afterwards flush.
        """
        if action == "BootNotification":
            connection.has_booted = True
            connection.session.open_for_calls(now)
        elif connection.accepted and not connection.behaviours.no_calls_before_boot:
            connection.session.open_for_calls(now)

    async def _trigger_boot(self, connection: ChargePointConnection) -> None:
        for message in ("BootNotification", "StatusNotification"):
            command = Command(action="TriggerMessage", payload={"requestedMessage": message})
            with contextlib.suppress(CommandError, ConnectionClosed):
                await self.perform(connection, command)

    # --- answers ---------------------------------------------------------------------------------

    async def answered(self, connection: ChargePointConnection, event: CallAnswered) -> None:
        """Read a CALLRESULT as tolerantly as a CALL; give it to its caller, or record it if it comes too late."""
        read = messages.read_answer(event.action, event.payload, zone=connection.zone)
        found = (*event.deviations, *read.deviations)
        await record_deviations(self.node, connection.charger_id, event.action, found, payload=event.payload)
        if isinstance(read, messages.Unreadable):
            _reject(connection, event.token, UnreadableAnswer(read.code, read.description))
            self._settle_late(connection, event.token, "")
            return
        read = messages.Decoded(read.message, found)
        answer = connection.pending.get(event.token)
        if answer is not None and not answer.done():
            answer.set_result(read)
        else:
            self._record_late(connection, event.token, "answered", read.message)
        self._settle_late(connection, event.token, plain_status(read))

    async def refused(self, connection: ChargePointConnection, event: CallRefused) -> None:
        """Give a CALLERROR to its caller, or record it if it comes too late."""
        await record_deviations(
            self.node, connection.charger_id, event.action, event.deviations, payload=event.details
        )
        details = masked(messages.read_plain(event.details))
        error = ChargerRefused(event.code, masked(event.description), details)
        if not _reject(connection, event.token, error):
            refusal = {"code": error.code, "description": error.description, "details": error.details}
            self._record_late(connection, event.token, "refused", refusal)
        self._settle_late(connection, event.token, "Rejected")

    def _record_late(
        self, connection: ChargePointConnection, sent: SentCommand, outcome: str, answer: dict[str, Any]
    ) -> None:
        """An answer that no caller waits for any more: the charge point did act, so it counts."""
        command = sent.command
        if command.id is None:
            return
        log.info("late_answer_received", charger=connection.charger_id, action=command.action)
        report = reports.Commanded(
            charger_id=connection.charger_id,
            id=command.id,
            action=command.action,
            payload=command.payload,
            outcome=outcome,
            answer=answer,
            error=None if outcome == "answered" else f"{answer['code']}: {answer['description']}",
            sent_at=sent.at,
            requested_by=command.requested_by,
            late=True,
        )
        self.tasks.spawn(self._record(report), f"late answer of {connection.charger_id}")

    async def _record(self, report: reports.Commanded) -> None:
        try:
            await self.node.record(report)
        except Exception as error:
            log.error(
                "late_answer_not_recorded",
                charger=report.charger_id,
                action=report.action,
                error=cause(error),
            )

    def _settle_late(self, connection: ChargePointConnection, sent: SentCommand, status: str) -> None:
        """No caller waits for this answer any more, and still it says which key or profile counts."""
        if sent in connection.pending:
            return
        settle = connection.unsettled.pop(sent, None)
        if settle is not None:
            self.tasks.spawn(
                _settled(settle(status), connection.charger_id), f"credentials of {connection.charger_id}"
            )

    # --- the end ---------------------------------------------------------------------------------

    @staticmethod
    def abandon(connection: ChargePointConnection) -> None:
        """End the session: no answer comes on this connection any more, and every caller hears it now."""
        charger_id = connection.charger_id
        for lost in connection.session.close():
            during = f"{charger_id} disconnected during {lost.action}"
            error = (
                ChargerTimeout(f"{during}: it may have acted on it")
                if lost.sent
                else ChargerOffline(f"{during}: it was not sent")
            )
            _reject(connection, lost.token, error)


def _reject(connection: ChargePointConnection, sent: SentCommand, error: CommandError) -> bool:
    """False: no caller waits for it any more."""
    answer = connection.pending.get(sent)
    if answer is None or answer.done():
        return False
    answer.set_exception(error)
    return True


async def _settled(settling: Awaitable[None], charger_id: str) -> None:
    try:
        await settling
    except Exception as error:
        # Both the old and the new credentials are accepted until one is used.
        log.warning("credential_change_not_settled", charger=charger_id, error=cause(error))
