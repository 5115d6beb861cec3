"""The OCPP-J server: sockets at the rim, everything that can be decided elsewhere is decided elsewhere.

One task reads a charge point's frames and answers its calls in order. It never waits for a call of ours: an
answer to one resolves a future that `perform` waits for. What belongs to a transaction is always acknowledged.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from prometheus_client import Counter
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from csms.adapter import EVERY_GENERATION, AdapterHost, Command
from csms.core import reports
from csms.core.masking import WITHOUT_SECRETS, masked, masked_frame
from csms.core.records import Frame
from csms.core.reports import Deviation
from csms.errors import (
    ChargerBusy,
    ChargerOffline,
    ChargerRefused,
    ChargerTimeout,
    CommandError,
    NotSupported,
)
from csms.ocpp import frames, handshake, messages
from csms.ocpp.admission import AdmissionControl, AdmissionRules
from csms.ocpp.certificate_signing import CertificateSigning
from csms.ocpp.connection import ChargePointConnection, ConnectionRegistry
from csms.ocpp.credential_changes import CredentialChanges, CredentialStore, change_in
from csms.ocpp.incoming_calls import IncomingCalls, as_reported
from csms.ocpp.listeners import TlsListener, listen
from csms.ocpp.liveness import Liveness, ping
from csms.ocpp.session import (
    CallAnswered,
    CallAnsweredLate,
    CallRefused,
    FrameDropped,
    IncomingCall,
    UnsolicitedAnswer,
)
from csms.ocpp.websocket import ChargePointSocket

log = structlog.get_logger()
_DROPPED = Counter("csms_ocpp_frames_dropped_total", "Frames that could not be answered.")

_SEEN_EVERY_S = 60
_SWEEP_S = 2.0
_WRITE_S = 30.0
_CLOSE_S = 6.0
_STOP_S = 5.0
_TRIGGERS = {"TriggerMessage", "ExtendedTriggerMessage"}
_TRIGGERED_AS = {"SignChargePointCertificate": "SignCertificate"}


class OcppServer:
    """The adapter for charge points that speak OCPP 1.6-J over WebSocket.

    `silence_s`: a connection without any sign of life for so long is closed. `ping_interval_s`: an idle
    connection is pinged this often; one that has answered pings before is closed after two that went
    unanswered. `calls_after_s`: without a BootNotification, our own calls wait this long after the handshake.
    """

    def __init__(
        self,
        *,
        sock: socket.socket,
        max_frame_bytes: int = 256 * 1024,
        ping_interval_s: float = 60,
        silence_s: float = 900,
        calls_after_s: float = 10,
        enrollment: str = "approve",
        tls: TlsListener | None = None,
        security: CredentialStore | None = None,
        rules: AdmissionRules | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._sock = sock
        self._max_frame_bytes = max_frame_bytes
        self._liveness = Liveness(ping_interval_s, silence_s)
        self._calls_after_s = calls_after_s
        self._enrollment = enrollment
        self._tls = tls
        self._security = security
        self._rules = rules or AdmissionRules()
        self._clock = clock
        self._connections = ConnectionRegistry()
        self._node: AdapterHost | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self.listening = asyncio.Event()

    # --- the adapter -----------------------------------------------------------------------------

    async def run(self, node: AdapterHost) -> None:
        """Serve until cancelled; then tell the charge points that we come back (1012)."""
        self._node = node
        self._guard(node)
        self._gate = AdmissionControl(
            node, enrollment=self._enrollment, security=self._security, rules=self._rules
        )
        sockets: list[tuple[socket.socket, ssl.SSLContext | None]] = [(self._sock, None)]
        if self._tls is not None:
            sockets.append((self._tls.sock, self._tls.context))
        servers = [
            await listen(self._serve, self._gate, sock, tls, max_frame_bytes=self._max_frame_bytes)
            for sock, tls in sockets
        ]
        self.listening.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sweep())
                if self._tls is not None:
                    tasks.create_task(self._tls.watch())
        finally:
            for server in servers:
                server.close(close_connections=False)
            await asyncio.gather(
                *(self._close(c, 1012, "the central system restarts") for c in self._connections),
                return_exceptions=True,
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    for server in servers:
                        await server.wait_closed()
            # Postgres may be away: what is not durable by now will be asked again.
            for task in self._serving:
                task.cancel()
            for server in servers:
                await server.wait_closed()

    def _guard(self, node: AdapterHost) -> None:
        """Credentials change and certificates are signed only where there is somebody to keep them."""
        certificates = changes = None
        if self._security is not None:
            changes = CredentialChanges(
                self._security,
                node.admission,
                tls=self._tls is not None or bool(self._rules.trusted_proxies),
                certificates=bool(self._rules.client_cas),
            )
            certificates = CertificateSigning(self._security, self.perform, self._spawn)
        self._changes = changes
        self._calls = IncomingCalls(node, self._clock, certificates)

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        """Call the charge point and give its answer. One call is outstanding; the others wait their turn."""
        connection = self._connections.get(charger_id)
        if connection is None:
            raise ChargerOffline(f"{charger_id} is not connected")
        if command.action == "ChangeAvailability" and connection.behaviours.no_change_availability:
            raise NotSupported(
                f"{charger_id} is of a kind that never answers ChangeAvailability: nothing was sent"
            )
        token = Asked(command, self._clock())
        change = change_in(command) if self._changes is not None else None
        if change is None or self._changes is None:
            answer: Mapping[str, Any] = await self._call(connection, command, token)
        else:
            answer = await self._changes.perform(
                connection, change, token, lambda token: self._call(connection, command, token)
            )
        return masked(answer)  # type: ignore[no-any-return]

    async def _call(
        self, connection: ChargePointConnection, command: Command, token: object
    ) -> dict[str, Any]:
        charger_id = connection.charger_id
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        connection.pending[token] = answer
        if command.action in _TRIGGERS:
            requested = str(command.payload.get("requestedMessage"))
            connection.triggered.add(_TRIGGERED_AS.get(requested, requested))
        try:
            connection.session.call(
                command.action,
                msgspec.json.encode(command.payload),
                time.monotonic(),
                command.timeout_s,
                token,
            )
            await self._flush(connection)
            async with asyncio.timeout(command.timeout_s * 2):
                await self._await_answer(connection, answer)
            return answer.result()
        except TimeoutError:
            if connection.session.cancel(token):
                raise ChargerBusy(f"{charger_id} was busy: {command.action} was not sent") from None
            raise ChargerTimeout(f"{charger_id} did not answer {command.action} in time") from None
        finally:
            connection.pending.pop(token, None)

    async def _await_answer(
        self, connection: ChargePointConnection, answer: "asyncio.Future[dict[str, Any]]"
    ) -> None:
        """Wait, and keep the session's clock: whoever waits gives up the outstanding call when it is due."""
        while not answer.done():
            deadline = connection.session.next_deadline()
            wait_s = 1.0 if deadline is None else min(max(deadline - time.monotonic(), 0.0), 1.0)
            await asyncio.wait({answer}, timeout=wait_s)
            self._tick(connection, time.monotonic())
            await self._flush(connection)

    def _tick(self, connection: ChargePointConnection, now: float) -> None:
        for late in connection.session.tick(now):
            error = ChargerTimeout(f"{connection.charger_id} did not answer {late.action} in time")
            _reject(connection, late.token, error)
        waited = now - connection.connected_at > self._calls_after_s
        may_boot = connection.behaviours.no_calls_before_boot and not connection.has_called
        if waited and not may_boot and not connection.session.is_open_for_calls:
            connection.session.open_for_calls(now)
            if connection.behaviours.no_boot_on_reconnect:
                self._spawn(self._ask_how_it_is(connection))

    async def _ask_how_it_is(self, connection: ChargePointConnection) -> None:
        """It came back without saying how it is, and never would."""
        for message in ("BootNotification", "StatusNotification"):
            command = Command(action="TriggerMessage", payload={"requestedMessage": message})
            with contextlib.suppress(CommandError, ConnectionClosed):
                await self.perform(connection.charger_id, command)

    async def hang_up(self, charger_id: str, generation: int) -> None:
        connection = self._connections.get(charger_id)
        if connection is None:
            return
        # One whose own generation is still to come may be the newest of all: it looks by itself then.
        connection.superseded_by = max(connection.superseded_by, generation)
        await self._close_if_superseded(connection)

    async def _close_if_superseded(self, connection: ChargePointConnection) -> None:
        if 0 < connection.generation < connection.superseded_by:
            elsewhere = "a newer connection of this charge point is open elsewhere"
            ended = "an operator has ended this connection"
            by_operator = connection.superseded_by == EVERY_GENERATION
            await self._close(connection, 1000, ended if by_operator else elsewhere)

    # --- one connection --------------------------------------------------------------------------

    async def _serve(self, socket: ServerConnection) -> None:
        node = self._running()
        assert isinstance(socket, ChargePointSocket)
        assert socket.request is not None
        charger_id = handshake.identity(socket.request.path)
        assert charger_id is not None
        entry = self._gate.entry(socket)
        address = _address(socket, entry.address)
        connection = ChargePointConnection(charger_id, socket, profile=entry.profile)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        replaced = self._connections.add(connection)
        if replaced is not None:
            # It may be half-open: neither the new connection nor who waits for an answer waits for its end.
            self._abandon(replaced)
            self._spawn(self._close(replaced, 1000, "replaced by a newer connection"))
        try:
            held = await node.record(
                reports.Connected(charger_id=charger_id, node=node.name, remote_address=address)
            )
            connection.generation = held.generation
            connection.accepted = held.enrollment == "Accepted"
            connection.know(held.vendor, held.model, held.firmware_version, held.time_zone)
            await self._close_if_superseded(connection)
            await node.hold(charger_id, self)
            log.info(
                "connected",
                charger=charger_id,
                address=address,
                generation=held.generation,
                security_profile=entry.profile,
            )
            while True:
                await self._receive(connection, await socket.receive())
                if socket.waiting:
                    # Frames that came together need no waiting: others shall have their turn in between.
                    await asyncio.sleep(0)
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == CloseCode.MESSAGE_TOO_BIG:
                detail = f"more than {self._max_frame_bytes} bytes"
                found = [reports.Deviation(field="", kind="too_large", detail=detail)]
                await self._calls.deviated(connection, "", found, wait=False)
        finally:
            await self._ended(connection)

    def _abandon(self, connection: ChargePointConnection) -> None:
        """Nobody will answer on this connection any more: whoever waits hears it now."""
        charger_id = connection.charger_id
        for lost in connection.session.close():
            during = f"{charger_id} disconnected during {lost.action}"
            error = (
                ChargerTimeout(f"{during}: it may have acted on it")
                if lost.sent
                else ChargerOffline(f"{during}: it was not sent")
            )
            _reject(connection, lost.token, error)

    async def _ended(self, connection: ChargePointConnection) -> None:
        node, charger_id = self._running(), connection.charger_id
        self._abandon(connection)
        socket = connection.socket
        if self._connections.remove(connection):
            await node.release(charger_id, self)
            log.info(
                "disconnected", charger=charger_id, code=socket.close_code, reason=socket.close_reason or None
            )
            if connection.behaviours.never_reconnects:
                remedy = "restart it by hand: chargers of this kind do not connect again by themselves"
                log.warning("charger_restart_needed", charger=charger_id, remedy=remedy)
        if connection.generation:
            node.post(
                reports.Disconnected(
                    charger_id=charger_id,
                    node=node.name,
                    generation=connection.generation,
                    reason=str(socket.close_code),
                )
            )

    async def _receive(self, connection: ChargePointConnection, frame: bytes) -> None:
        now = time.monotonic()
        event = connection.session.receive(frame, now)
        if isinstance(event, IncomingCall):
            self._log(connection, frame, "call", event.action, event.message_id)
            connection.answering = True
            try:
                await self._calls.answer(connection, event)
            finally:
                connection.answering = False
            await self._flush(connection, event.action)
            if event.action == "BootNotification":
                connection.session.open_for_calls(now)
        elif isinstance(event, CallAnswered | CallAnsweredLate):
            self._log(connection, frame, "result", event.action)
            await self._answered(connection, event)
        elif isinstance(event, CallRefused):
            self._log(connection, frame, "error", event.action)
            await self._tolerated(connection, event.action, event.details, event.deviations)
            details = messages.read_plain(event.details)
            error = ChargerRefused(event.code, event.description, {} if details is None else details)
            if not _reject(connection, event.token, error):
                told = {"code": error.code, "description": error.description, "details": error.details}
                self._late(connection, event.token, "refused", told)
            self._settle_late(connection, event.token, "Rejected")
        else:
            await self._odd(connection, frame, event)
        if connection.session.has_data_to_send:
            await self._flush(connection)
        if now - connection.seen_posted_at > _SEEN_EVERY_S:
            connection.seen_posted_at = now
            self._running().post(reports.Seen(charger_id=connection.charger_id))

    async def _answered(
        self, connection: ChargePointConnection, event: CallAnswered | CallAnsweredLate
    ) -> None:
        """Read a CALLRESULT as tolerantly as a CALL and give it to the caller, or book it if it comes too late."""
        read = messages.read_answer(event.action, event.payload, zone=connection.zone)
        await self._tolerated(connection, event.action, event.payload, (*event.deviations, *read.deviations))
        if isinstance(read, messages.Unreadable):
            _reject(connection, event.token, ChargerRefused(read.code, read.description))
            self._settle_late(connection, event.token, "")
            return
        if not _resolve(connection, event.token, read.message):
            self._late(connection, event.token, "answered", read.message)
        self._settle_late(connection, event.token, str(read.message.get("status")))

    async def _tolerated(
        self,
        connection: ChargePointConnection,
        action: str,
        payload: msgspec.Raw,
        found: tuple[Deviation, ...],
    ) -> None:
        if found:
            await self._calls.deviated(connection, action, as_reported(payload, *found), wait=False)

    def _late(
        self, connection: ChargePointConnection, token: "Asked", outcome: str, answer: dict[str, Any]
    ) -> None:
        """An answer that nobody waits for any more: the charge point did act, so it counts."""
        command = token.command
        if command.id is None:
            return
        log.info("late answer", charger=connection.charger_id, action=command.action)
        report = reports.Commanded(
            charger_id=connection.charger_id,
            id=command.id,
            action=command.action,
            payload=command.payload,
            outcome=outcome,
            answer=answer,
            error=None if outcome == "answered" else f"{answer.get('code')}: {answer.get('description')}",
            sent_at=token.at,
            requested_by=command.requested_by,
            late=True,
        )
        self._spawn(self._record_late(report))

    async def _record_late(self, report: reports.Commanded) -> None:
        try:
            await self._running().record(report)
        except Exception as error:
            log.error("late answer not recorded", charger=report.charger_id, error=str(error))

    def _settle_late(self, connection: ChargePointConnection, token: object, status: str) -> None:
        """Nobody waits for this answer any more, and still it says which key or profile counts."""
        if token in connection.pending:
            return
        settle = connection.unsettled.pop(token, None)
        if settle is not None:
            self._spawn(_settled(settle(status), connection.charger_id))

    async def _odd(
        self, connection: ChargePointConnection, frame: bytes, event: UnsolicitedAnswer | FrameDropped
    ) -> None:
        """Frames that lead nowhere are logged and counted. One that tells of a transaction is kept."""
        self._log(connection, frame, "odd", getattr(event, "action", None), event.message_id)
        _DROPPED.inc()
        reason = event.reason if isinstance(event, FrameDropped) else "an answer to nothing we asked"
        log.info(
            "frame dropped", charger=connection.charger_id, reason=reason, frame=masked_frame(frame)[:200]
        )
        kind = "unsolicited" if isinstance(event, UnsolicitedAnswer) else "malformed_frame"
        found = [reports.Deviation(field="", kind=kind, detail=reason)]
        action = getattr(event, "action", None)
        telling = isinstance(event, FrameDropped) and action in messages.TRANSACTION_ACTIONS
        await self._calls.deviated(connection, (action or "")[:50], found, wait=not telling)
        if not isinstance(event, FrameDropped):
            return
        if telling:
            # Never a CALLERROR: an acknowledgement, once it is kept.
            await self._calls.rescue(connection, event, frame)
        elif event.answerable and event.message_id is not None:
            connection.session.refuse(event.message_id, event.code, event.reason)

    # --- sockets ---------------------------------------------------------------------------------

    async def _flush(self, connection: ChargePointConnection, action: str | None = None) -> None:
        for data in connection.session.data_to_send():
            self._log_sent(connection, data, action)
            if connection.socket.send_now(data):
                continue
            try:
                async with asyncio.timeout(_WRITE_S):
                    await connection.socket.send(data, text=True)
            except TimeoutError:
                # It never reads: nobody else shall wait for it.
                await self._close(connection, 1008, "this charge point does not read")
                return
            except ConnectionClosed:
                return

    async def _close(self, connection: ChargePointConnection, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await connection.socket.close(code, reason)
        except Exception:
            # The closing frame itself waits for room when the other side does not read.
            connection.socket.transport.abort()

    async def _sweep(self) -> None:
        """Now and then: ping the quiet, close the dead, let our calls go where no boot came."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            accepting = self._running().accepting()
            for connection in self._connections:
                lost_for_good = connection.behaviours.never_reconnects
                if not accepting and not connection.answering and not lost_for_good:
                    # What a charge point has not sent yet costs it no attempt: better outside than unanswered.
                    self._spawn(self._close(connection, 1013, "the database is away, try again later"))
                    continue
                self._tick(connection, now)
                if connection.session.is_open_for_calls:
                    self._spawn(self._flush(connection))
                judged = self._liveness.judge(
                    quiet_s=connection.quiet_s(now), answers_pings=connection.answered_ping
                )
                if judged == "dead":
                    self._spawn(self._close(connection, 1001, "no sign of life"))
                elif judged == "quiet" and not connection.pinging:
                    self._spawn(ping(connection, self._liveness.ping_interval_s))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the log of frames -----------------------------------------------------------------------

    def _log(
        self, connection: ChargePointConnection, frame: bytes, kind: str, action: str | None, message_id: str | None = None,
        *, outgoing: bool = False,
    ) -> None:  # fmt: skip
        self._running().frame(
            Frame(
                charger_id=connection.charger_id,
                at=self._clock(),
                outgoing=outgoing,
                kind=kind,
                action=action,
                message_id=message_id,
                frame=frame if action in WITHOUT_SECRETS else masked_frame(frame),
            )
        )

    def _log_sent(self, connection: ChargePointConnection, data: bytes, action: str | None) -> None:
        if data.startswith(b"[2,"):
            sent = frames.parse(data)
            assert isinstance(sent, frames.CallFrame)
            self._log(connection, data, "call", sent.action, sent.message_id, outgoing=True)
        else:
            kind = "error" if data.startswith(b"[4,") else "result"
            self._log(connection, data, kind, action, outgoing=True)

    def _running(self) -> AdapterHost:
        assert self._node is not None, "run() has not been called"
        return self._node


class Asked:
    """A command of ours and when it was handed to the session; what the session knows the call by."""

    __slots__ = ("at", "command")

    def __init__(self, command: Command, at: datetime) -> None:
        self.command = command
        self.at = at


def _resolve(connection: ChargePointConnection, token: object, payload: dict[str, Any]) -> bool:
    """False: nobody waits for it any more."""
    answer = connection.pending.get(token)
    if answer is None or answer.done():
        return False
    answer.set_result(payload)
    return True


def _reject(connection: ChargePointConnection, token: object, error: CommandError) -> bool:
    answer = connection.pending.get(token)
    if answer is None or answer.done():
        return False
    answer.set_exception(error)
    return True


async def _settled(settling: Awaitable[None], charger_id: str) -> None:
    try:
        await settling
    except Exception as error:
        # Both old and new are accepted until one is used.
        log.warning("credentials not settled", charger=charger_id, error=str(error))


def _address(socket: ServerConnection, client: str | None) -> str | None:
    """Address and port of the charge point; behind a proxy the port is not known."""
    address = socket.remote_address
    if not isinstance(address, tuple):
        return client
    return f"{address[0]}:{address[1]}" if client in {None, address[0]} else client
