"""The `ocpp` package's example central system (examples/v16/central_system.py), as its documentation shows it:
one class, handlers that answer from memory, the package's defaults. Handlers for the messages that the example
does not have are written in its manner. `python -m benchmarks.peers.in_memory PORT`

Its log goes to a file that is not read. The allocator is warmed first (docs/benchmarks.md), which helps the peer.
"""

import asyncio
import logging
import sys
from datetime import UTC, datetime

import websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint as cp
from ocpp.v16 import call_result
from ocpp.v16.enums import Action, AuthorizationStatus, RegistrationStatus

logging.basicConfig(level=logging.INFO)


class ChargePoint(cp):
    transactions = 0

    @on(Action.boot_notification)
    def on_boot_notification(self, charge_point_vendor: str, charge_point_model: str, **kwargs):
        return call_result.BootNotification(
            current_time=datetime.now(UTC).isoformat(), interval=300, status=RegistrationStatus.accepted
        )

    @on(Action.heartbeat)
    def on_heartbeat(self):
        return call_result.Heartbeat(current_time=datetime.now(UTC).isoformat())

    @on(Action.status_notification)
    def on_status_notification(self, connector_id: int, error_code: str, status: str, **kwargs):
        return call_result.StatusNotification()

    @on(Action.meter_values)
    def on_meter_values(self, connector_id: int, meter_value: list, **kwargs):
        return call_result.MeterValues()

    @on(Action.start_transaction)
    def on_start_transaction(
        self, connector_id: int, id_tag: str, meter_start: int, timestamp: str, **kwargs
    ):
        ChargePoint.transactions += 1
        return call_result.StartTransaction(
            transaction_id=ChargePoint.transactions, id_tag_info={"status": AuthorizationStatus.accepted}
        )

    @on(Action.stop_transaction)
    def on_stop_transaction(self, transaction_id: int, meter_stop: int, timestamp: str, **kwargs):
        return call_result.StopTransaction()


async def on_connect(websocket):
    try:
        requested_protocols = websocket.request.headers["Sec-WebSocket-Protocol"]
    except KeyError:
        logging.error("Client hasn't requested any Subprotocol. Closing Connection")
        return await websocket.close()
    if websocket.subprotocol:
        logging.info("Protocols Matched: %s", websocket.subprotocol)
    else:
        logging.warning("Protocols Mismatched: client requested %s", requested_protocols)
        return await websocket.close()
    charge_point_id = websocket.request.path.strip("/").rsplit("/", 1)[-1]
    try:
        await ChargePoint(charge_point_id, websocket).start()
    except websockets.exceptions.ConnectionClosed:
        pass


async def main():
    server = await websockets.serve(
        on_connect, "127.0.0.1", int(sys.argv[1]), subprotocols=["ocpp1.6"], backlog=4096
    )
    logging.info("Server Started listening to new connections...")
    await server.wait_closed()


if __name__ == "__main__":
    block = bytearray(1 << 20)
    del block
    asyncio.run(main())
