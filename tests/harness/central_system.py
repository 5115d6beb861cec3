"""A small central system for the simulator's tests: strict by the package's own schemas, disobedient on request."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

from ocpp.exceptions import InternalError
from ocpp.messages import Call, validate_payload
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from csms.simulate import ChargePointOptions, SimulatedChargePoint

NOW = "2026-01-01T00:00:00Z"
Verdict = str | None
"""None: answer; "silent": never answer; "error": CALLERROR; "close": cut the connection."""


class Session(ChargePoint):
    """One connection of one charge point."""

    def __init__(self, central: "Central", path: str, connection: ServerConnection) -> None:
        super().__init__(path, connection, response_timeout=5)
        self.central = central
        self.connection = connection

    async def route_message(self, raw: str) -> None:
        frame = json.loads(raw)
        if frame[0] == 2:
            _, message_id, action, payload = frame
            try:
                await validate_payload(Call(message_id, action, payload), "1.6")
            except Exception as error:
                self.central.faults.append(f"{action}: {error}: {payload}")
            self.central.seen.append((self.id, message_id, action, payload))
            verdict = self.central.verdict(action, payload)
            if verdict == "silent":
                return
            if verdict == "error":
                await self._send(
                    Call(message_id, action, payload).create_call_error(InternalError()).to_json()
                )
                return
            if verdict == "close":
                await self.connection.close()
                return
        await super().route_message(raw)

    @on("BootNotification")
    def on_boot(self, **_: Any) -> Any:
        status = next(self.central.boot_statuses)
        return call_result.BootNotification(NOW, self.central.interval_s, status)

    @on("Heartbeat")
    def on_heartbeat(self) -> Any:
        return call_result.Heartbeat(NOW)

    @on("StatusNotification")
    def on_status(self, **_: Any) -> Any:
        return call_result.StatusNotification()

    @on("Authorize")
    def on_authorize(self, id_tag: str) -> Any:
        return call_result.Authorize({"status": self.central.tag_statuses.get(id_tag, "Accepted")})

    @on("StartTransaction")
    def on_start(self, id_tag: str, **_: Any) -> Any:
        status = self.central.start_statuses.get(id_tag, "Accepted")
        return call_result.StartTransaction(next(self.central.ids), {"status": status})

    @on("MeterValues")
    def on_meter_values(self, **_: Any) -> Any:
        return call_result.MeterValues()

    @on("StopTransaction")
    def on_stop(self, **_: Any) -> Any:
        return call_result.StopTransaction()

    @on("FirmwareStatusNotification")
    def on_firmware(self, **_: Any) -> Any:
        return call_result.FirmwareStatusNotification()

    @on("DiagnosticsStatusNotification")
    def on_diagnostics(self, **_: Any) -> Any:
        return call_result.DiagnosticsStatusNotification()


class Central:
    """`async with Central() as central`; `seen` holds (path, message id, action, payload) in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, dict[str, Any]]] = []
        self.faults: list[str] = []
        self.headers: list[Headers] = []
        self.subprotocols: list[str | None] = []
        self.verdict: Callable[[str, dict[str, Any]], Verdict] = lambda action, payload: None
        self.boot_statuses: Iterator[str] = itertools.repeat("Accepted")
        self.interval_s = 300
        self.tag_statuses: dict[str, str] = {}
        self.start_statuses: dict[str, str] = {}
        self.ids = itertools.count(7001)
        self.sessions: dict[str, Session] = {}
        self.port = 0
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ocpp"

    async def start(self) -> None:
        async def handle(connection: ServerConnection) -> None:
            assert connection.request is not None
            path = connection.request.path
            self.headers.append(connection.request.headers)
            self.subprotocols.append(connection.subprotocol)
            session = self.sessions[path] = Session(self, path, connection)
            with contextlib.suppress(ConnectionClosed):
                await session.start()

        self._server = await serve(
            handle,
            "127.0.0.1",
            self.port,
            subprotocols=[Subprotocol("ocpp1.6")],
            compression=None,
            close_timeout=1,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def actions(self, *names: str) -> list[dict[str, Any]]:
        return [payload for _, _, action, payload in self.seen if action in names]

    def order(self, *names: str) -> list[str]:
        return [action for _, _, action, _ in self.seen if action in names]

    def statuses(self, connector_id: int = 1) -> list[str]:
        return [
            payload["status"]
            for payload in self.actions("StatusNotification")
            if payload["connectorId"] == connector_id
        ]

    async def ask(self, path: str, action: str, **payload: Any) -> Any:
        """Calls the charge point; the call_result."""
        return await self.sessions[path].call(getattr(call, action)(**payload), suppress=False)


FAST = 36_000.0
"""Ten simulated hours a second."""


def charge_point(central: Central, identity: str = "CP1", **options: Any) -> SimulatedChargePoint:
    """A charge point quick enough for tests."""
    keys = {"TransactionMessageRetryInterval": "0.02", "MeterValueSampleInterval": "300"}
    keys |= options.pop("configuration", {})
    settings: dict[str, Any] = {"speed": FAST, "reconnect_s": (0.01, 0.05), "reboot_s": 0.02}
    settings |= {"configuration": keys} | options
    return SimulatedChargePoint(identity, central.url, ChargePointOptions(**settings))


@contextlib.asynccontextmanager
async def running(
    one: SimulatedChargePoint, sessions: int | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Plays `one` for the length of the block; its faults are the test's."""
    task = asyncio.create_task(one.run(sessions))
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def play(one: SimulatedChargePoint, sessions: int) -> None:
    async with asyncio.timeout(15):
        await one.run(sessions)
