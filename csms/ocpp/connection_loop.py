"""One connection from its handshake to its end: it is put on record, its frames are received, its end is reported.

One task reads a charge point's frames and answers its CALLs in order. It never waits for a CALL of ours: an answer to
one resolves the future that the caller waits for. What belongs to a transaction is always acknowledged.
"""

import asyncio
import time
from dataclasses import dataclass

import structlog
from prometheus_client import Counter
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from csms.adapter import Adapter, AdapterHost
from csms.aio import TaskSet
from csms.core import reports
from csms.core.masking import masked_frame
from csms.core.reports import Deviation
from csms.ocpp import messages
from csms.ocpp.admission import AdmissionControl
from csms.ocpp.connection import ChargePointConnection, ConnectionRegistry, ServerTimings
from csms.ocpp.deviation_reports import record_deviations
from csms.ocpp.frames import CallFrame, UnusableFrame
from csms.ocpp.incoming_calls import IncomingCalls
from csms.ocpp.outgoing_calls import OutgoingCalls
from csms.ocpp.session import CallAnswered, CallRefused, UnsolicitedAnswer
from csms.ocpp.shared_identities import IdentityWatch
from csms.ocpp.websocket import ChargePointSocket

log = structlog.get_logger()
_DROPPED = Counter("csms_ocpp_frames_dropped_total", "Frames that could not be answered.")


@dataclass(eq=False)
class ConnectionLoop:
    """`adapter` is what the node knows this server by: commands for a charger that it holds go there."""

    adapter: Adapter
    node: AdapterHost
    connections: ConnectionRegistry
    admission: AdmissionControl
    incoming: IncomingCalls
    outgoing: OutgoingCalls
    watch: IdentityWatch
    tasks: TaskSet
    accepted_frame_bytes: int
    timings: ServerTimings

    def __post_init__(self) -> None:
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, socket: ServerConnection) -> None:
        """Serve a connection whose handshake was admitted, until it ends."""
        assert isinstance(socket, ChargePointSocket)
        admitted = self.admission.admitted(socket)
        charger_id = admitted.charger_id
        connection = ChargePointConnection(
            charger_id,
            socket,
            address=admitted.address,
            profile=admitted.profile,
            record_frame=self.node.frame,
            accepted_frame_bytes=self.accepted_frame_bytes,
            timings=self.timings,
        )
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        replaced = self.connections.add(connection)
        if replaced is not None:
            # It may be half-open: neither the new connection nor a caller waits for its end.
            self.outgoing.abandon(replaced)
            self.tasks.spawn(self._displace(replaced, connection), f"close {charger_id}")
        try:
            await self._put_on_record(connection, _address(socket, admitted.address))
            while True:
                await self._receive(connection, await socket.receive())
                if socket.waiting:
                    # Frames that came together need no waiting: other connections get their turn in between.
                    await asyncio.sleep(0)
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == CloseCode.MESSAGE_TOO_BIG:
                await self._too_large(connection)
        finally:
            await self._ended(connection)

    async def _displace(self, replaced: ChargePointConnection, by: ChargePointConnection) -> None:
        await replaced.close(CloseCode.NORMAL_CLOSURE, "replaced by a newer connection")
        await self.watch.displaced(replaced, by.address, time.monotonic())

    def cancel(self) -> None:
        """End the service of every connection; what is not recorded by now, the charge point sends again."""
        for task in self._serving:
            task.cancel()

    async def _put_on_record(self, connection: ChargePointConnection, address: str | None) -> None:
        charger_id = connection.charger_id
        held = await self.node.record(
            reports.Connected(charger_id=charger_id, node=self.node.name, remote_address=address)
        )
        connection.generation = held.generation
        connection.accepted = held.enrollment == "Accepted"
        connection.know(held.vendor, held.model, held.firmware_version, held.time_zone)
        await connection.close_if_superseded()
        await self.node.hold(charger_id, self.adapter)
        log.info(
            "charger_connected",
            charger=charger_id,
            address=address,
            generation=held.generation,
            security_profile=connection.profile,
        )

    async def _ended(self, connection: ChargePointConnection) -> None:
        charger_id = connection.charger_id
        code, reason = connection.socket.end
        self.outgoing.abandon(connection)
        if self.connections.remove(connection):
            await self.node.release(charger_id, self.adapter)
            log.info(
                "charger_disconnected",
                charger=charger_id,
                code=int(code),
                reason=reason or None,
            )
            if connection.behaviours.never_reconnects:
                log.warning(
                    "charger_restart_needed",
                    charger=charger_id,
                    remedy="Restart this charger by hand: its kind does not connect again by itself.",
                )
        if connection.generation:
            self.node.post(
                reports.Disconnected(
                    charger_id=charger_id,
                    node=self.node.name,
                    generation=connection.generation,
                    reason=str(int(code)),
                )
            )

    async def _receive(self, connection: ChargePointConnection, frame: bytes) -> None:
        now = time.monotonic()
        event = connection.session.receive(frame, now)
        if isinstance(event, CallFrame):
            secret = connection.log_frame(frame, "call", event.action, event.message_id)
            connection.answering = True
            try:
                await self.incoming.answer(connection, event, secret=secret)
            finally:
                connection.answering = False
            await connection.flush(event.action)
            self.outgoing.called(connection, event.action, now)
        elif isinstance(event, CallAnswered):
            connection.log_frame(frame, "result", event.action)
            await self.outgoing.answered(connection, event)
        elif isinstance(event, CallRefused):
            connection.log_frame(frame, "error", event.action)
            await self.outgoing.refused(connection, event)
        else:
            await self._unusable(connection, frame, event)
        if connection.session.has_data_to_send:
            await connection.flush()
        if now - connection.seen_posted_at > self.timings.seen_every_s:
            connection.seen_posted_at = now
            self.node.post(reports.Seen(charger_id=connection.charger_id))

    async def _unusable(
        self, connection: ChargePointConnection, frame: bytes, event: UnsolicitedAnswer | UnusableFrame
    ) -> None:
        """Log and count a frame that leads nowhere. One that tells of a transaction is kept and acknowledged."""
        action, kind, reason = None, "unsolicited", "an answer to no call of this connection"
        if isinstance(event, UnusableFrame):
            action, kind, reason = event.action, "malformed_frame", event.description
        connection.log_frame(frame, "odd", action, event.message_id)
        _DROPPED.inc()
        log.info(
            "frame_dropped", charger=connection.charger_id, reason=reason, frame=masked_frame(frame)[:200]
        )
        of_transaction = action in messages.TRANSACTION_ACTIONS
        await record_deviations(
            self.node,
            connection.charger_id,
            (action or "")[:50],
            [Deviation(field="", kind=kind, detail=reason)],
            wait=not of_transaction,
        )
        if not isinstance(event, UnusableFrame):
            return
        if of_transaction:
            # Never a CALLERROR: an acknowledgement, once it is kept.
            await self.incoming.rescue(connection, event, frame)
        elif event.answerable and event.message_id is not None:
            connection.session.refuse(event.message_id, event.code, reason)

    async def _too_large(self, connection: ChargePointConnection) -> None:
        limit = connection.socket.protocol.max_message_size
        setting = "CSMS_OCPP_MAX_FRAME_BYTES"
        if connection.accepted:
            setting = "CSMS_OCPP_MAX_ACCEPTED_FRAME_BYTES"
        log.warning(
            "frame_too_large",
            charger=connection.charger_id,
            limit_bytes=limit,
            remedy=f"Raise {setting}: a transaction message that is larger is sent again and again.",
        )
        found = [Deviation(field="", kind="too_large", detail=f"more than {limit} bytes ({setting})")]
        await record_deviations(self.node, connection.charger_id, "", found)


def _address(socket: ServerConnection, client: str | None) -> str | None:
    """Address and port of the charge point; behind a proxy the port is not known."""
    address = socket.remote_address
    if not isinstance(address, tuple):
        return client
    return f"{address[0]}:{address[1]}" if client in {None, address[0]} else client
