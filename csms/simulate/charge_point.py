"""A simulated OCPP 1.6-J charge point: boots, reports, and keeps its sessions through any outage."""

import asyncio
from typing import Any

from websockets.asyncio.client import ClientConnection

from csms.simulate.connector import SimulatedConnector
from csms.simulate.controller import ChargePointController, ChargePointOptions
from csms.simulate.handlers import AnsweringConnection
from csms.simulate.plan import SessionPlanner
from csms.simulate.records import BelievedTransaction


class SimulatedChargePoint(ChargePointController):
    """`run()` simulates it; `transactions` and `counters` are what it knows afterwards, to compare with the central system.

    `url` is the central system's address without the identity, which is appended percent-encoded.
    """

    def __init__(self, identity: str, url: str, options: ChargePointOptions | None = None) -> None:
        options = options or ChargePointOptions()
        super().__init__(identity, url, options)
        self.connectors = {
            number: SimulatedConnector(
                self,
                number,
                SessionPlanner(
                    f"{options.seed}/{identity}/{number}",
                    options.tags,
                    options.outlet,
                    options.idle_s,
                    options.charge_s,
                ),
                f"{options.seed}/{identity}/{number}/meter",
            )
            for number in range(1, options.connectors + 1)
        }

    @property
    def transactions(self) -> list[BelievedTransaction]:
        """All transactions it has started, oldest first."""
        return self.delivery.transactions

    @property
    def energy_wh(self) -> int:
        """Energy of all transactions, including the running ones."""
        total = sum(transaction.energy_wh or 0 for transaction in self.transactions)
        for connector in self.connectors.values():
            if connector.transaction:
                total += connector.register_wh - connector.transaction.meter_start_wh
        return total

    async def run(self, sessions: int | None = None) -> None:
        """Run until each connector has had `sessions` (None: no end) or `finish` was called, and all messages are delivered.

        A cancellation closes the socket at once.
        """
        line = asyncio.create_task(self.line.hold(self._answering, self.converse))
        connectors = asyncio.gather(*(connector.run(sessions) for connector in self.connectors.values()))
        try:
            ends: set[asyncio.Future[Any]] = {line, connectors}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            while not line.done() and not (connectors.done() and self.settled):
                await asyncio.wait({line}, timeout=0.02)
            if line.done():
                line.result()  # it ends only by an exception
            connectors.result()
        finally:
            self.delivery.close()
            line.cancel()
            connectors.cancel()
            await asyncio.gather(line, connectors, return_exceptions=True)
            await self.tasks.cancel()

    def _answering(self, socket: ClientConnection) -> AnsweringConnection:
        return AnsweringConnection(self, self.connectors, socket)

    def finish(self) -> None:
        """End the running sessions and start no more; `run` returns when all messages are delivered."""
        self.finishing = True
        for connector in self.connectors.values():
            connector.stop("Local")
        self.changed()
