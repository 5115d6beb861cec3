"""The OCPP-J server: the adapter for charge points that speak OCPP 1.6-J over WebSocket.

It owns the listeners and the sweep over all connections. What happens on one connection: `connection_loop`; the CALLs of
charge points: `incoming_calls`; those of the central system: `outgoing_calls`.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server
from websockets.frames import CloseCode

from csms.adapter import AdapterHost, Command
from csms.aio import TaskSet
from csms.errors import ChargerOffline
from csms.ocpp.admission import AdmissionControl, AdmissionRules
from csms.ocpp.certificate_signing import CertificateSigning
from csms.ocpp.connection import DEFAULT_TIMINGS, ChargePointConnection, ConnectionRegistry, ServerTimings
from csms.ocpp.connection_loop import ConnectionLoop
from csms.ocpp.credential_changes import CredentialChanges, CredentialStore
from csms.ocpp.incoming_calls import IncomingCalls
from csms.ocpp.listeners import TlsListener, listen
from csms.ocpp.liveness import Liveness, ping
from csms.ocpp.outgoing_calls import OutgoingCalls
from csms.ocpp.shared_identities import IdentityWatch


@dataclass(kw_only=True, eq=False)
class OcppServer:
    """Implements `csms.adapter.Adapter`.

    `silence_s`: a connection without any sign of life for so long is closed. `ping_interval_s`: an idle
    connection is pinged this often; one that has answered pings before is closed after two that went
    unanswered. `max_frame_bytes`: the largest frame of a charge point that is not accepted; `accepted_frame_bytes` that of
    one that is. `calls_after_s`: without a BootNotification, our CALLs wait this long after the handshake.
    """

    sock: socket.socket
    tls: TlsListener | None
    security: CredentialStore
    rules: AdmissionRules
    max_frame_bytes: int
    accepted_frame_bytes: int
    ping_interval_s: float
    silence_s: float
    calls_after_s: float
    enrollment: str
    timings: ServerTimings = DEFAULT_TIMINGS

    def __post_init__(self) -> None:
        self._liveness = Liveness(self.ping_interval_s, self.silence_s)
        self._connections = ConnectionRegistry()
        self._outgoing: OutgoingCalls | None = None
        self._watch: IdentityWatch | None = None
        self._tasks = TaskSet()
        self.listening = asyncio.Event()

    async def run(self, node: AdapterHost) -> None:
        """Serve until cancelled; then close every connection with 1012, after which charge points connect again."""
        changes = CredentialChanges(
            self.security,
            node.admission,
            tls=self.tls is not None or bool(self.rules.trusted_proxies),
            certificates=bool(self.rules.client_cas),
        )
        certificates = CertificateSigning(self.security, self.perform, self._tasks)
        frame_bytes = max(self.max_frame_bytes, self.accepted_frame_bytes)
        admission = AdmissionControl(
            node, self.security, self.rules, enrollment=self.enrollment, accepted_frame_bytes=frame_bytes
        )
        watch = self._watch = IdentityWatch(node)
        outgoing = self._outgoing = OutgoingCalls(
            node, changes, self._tasks, calls_after_s=self.calls_after_s
        )
        loop = ConnectionLoop(
            self,
            node,
            self._connections,
            admission,
            IncomingCalls(node, certificates, watch),
            outgoing,
            watch,
            self._tasks,
            accepted_frame_bytes=frame_bytes,
            timings=self.timings,
        )
        sockets: list[tuple[socket.socket, ssl.SSLContext | None]] = [(self.sock, None)]
        if self.tls is not None:
            sockets.append((self.tls.sock, self.tls.context))
        servers = [
            await listen(loop.serve, admission, sock, tls, max_frame_bytes=self.max_frame_bytes)
            for sock, tls in sockets
        ]
        self.listening.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sweep(node, outgoing))
                if self.tls is not None:
                    tasks.create_task(self.tls.watch())
        finally:
            await self._stop(servers, loop)

    async def _stop(self, servers: list[Server], loop: ConnectionLoop) -> None:
        for server in servers:
            server.close(close_connections=False)
        await asyncio.gather(
            *(c.close(CloseCode.SERVICE_RESTART, "the central system restarts") for c in self._connections),
            return_exceptions=True,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timings.stop_s):
                for server in servers:
                    await server.wait_closed()
        # The database may be away: the charge point sends again what is not durable by now.
        loop.cancel()
        for server in servers:
            await server.wait_closed()

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        connection = self._connections.get(charger_id)
        if connection is None:
            raise ChargerOffline(f"{charger_id} is not connected")
        assert self._outgoing is not None, "run() has not been called"
        return await self._outgoing.perform(connection, command)

    async def hang_up(self, charger_id: str, generation: int) -> None:
        connection = self._connections.get(charger_id)
        if connection is not None:
            connection.superseded_by = max(connection.superseded_by, generation)
            if await connection.close_if_superseded() and self._watch is not None:
                await self._watch.displaced(connection, None, time.monotonic())

    # --- the sweep -------------------------------------------------------------------------------

    async def _sweep(self, node: AdapterHost, outgoing: OutgoingCalls) -> None:
        """At intervals: ping the quiet, close the dead, let our CALLs go where no boot came."""
        while True:
            await asyncio.sleep(self.timings.sweep_s)
            now = time.monotonic()
            accepting = node.accepting()
            for connection in self._connections:
                if not accepting and _may_be_sent_away(connection):
                    reason = "the database is away, try again later"
                    self._spawn(connection, connection.close(CloseCode.TRY_AGAIN_LATER, reason))
                    continue
                outgoing.tick(connection, now)
                if connection.session.has_data_to_send:
                    self._spawn(connection, connection.flush())
                judged = self._liveness.judge(
                    quiet_s=connection.quiet_s(now), answers_pings=connection.answered_ping
                )
                if judged == "dead":
                    self._spawn(connection, connection.close(CloseCode.GOING_AWAY, "no sign of life"))
                elif judged == "quiet" and not connection.pinging:
                    self._spawn(connection, ping(connection, self._liveness.ping_interval_s))

    def _spawn(self, connection: ChargePointConnection, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.spawn(work, f"sweep of {connection.charger_id}")


def _may_be_sent_away(connection: ChargePointConnection) -> bool:
    """Whether it is better outside while the database is away: what it has not sent yet costs it no attempt.

    One whose CALL is being recorded has its answer coming; one that never connects again would be lost.
    """
    return not connection.answering and not connection.behaviours.never_reconnects
