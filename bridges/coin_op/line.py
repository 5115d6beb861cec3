"""One station as the adapter keeps it: its rentals' state, what is to be recorded in order, who waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from bridges.coin_op.acts import Presence
from bridges.coin_op.packet import Packet
from bridges.coin_op.station import Station
from csms.adapter import Adapter, AdapterHost
from csms.core import reports
from csms.core.command_queue import COIN_OP_PROTOCOL
from csms.errors import LedgerError

log = structlog.get_logger()
PROTOCOL = COIN_OP_PROTOCOL
_LOST = Counter("coinop_reports_dropped_total", "Statuses and readings given up while Postgres was away.")
_MOST_WAITING = 500

Item = reports.Report[Any] | Presence
Left = Callable[["Line", reports.BalanceLeft], None]


class Line:
    """Reports are recorded one after the other, so that a station's facts keep their order."""

    def __init__(
        self, node: AdapterHost, adapter: Adapter, station: Station, station_id: str, *, left: Left
    ) -> None:
        self.station = station
        self.station_id = station_id
        self.charger_id = station.charger_id
        self.transaction_id: int | None = None
        self.watched_until: datetime | None = None
        self.hello_at: datetime | None = None
        self.connecting: tuple[str, asyncio.Future[str]] | None = None
        self.stopping: asyncio.Future[bool] | None = None
        self.commanded: deque[datetime] = deque(maxlen=5)
        self._node = node
        self._adapter = adapter
        self._left = left
        self._generation: int | None = None
        self._waiting: deque[Item] = deque()
        self._waiters: list[tuple[Callable[[Packet], bool], asyncio.Future[Packet]]] = []
        self._writer: asyncio.Task[None] | None = None

    # --- what is heard ---------------------------------------------------------------------------

    def heard(self, packet: Packet) -> None:
        """Wake whoever waits for such a packet."""
        for wanted, future in list(self._waiters):
            if not future.done() and wanted(packet):
                future.set_result(packet)

    async def next(self, wanted: Callable[[Packet], bool], within_s: float) -> Packet | None:
        """The first such packet from now on; None: none came."""
        future: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()
        entry = (wanted, future)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiters.remove(entry)

    # --- what is recorded ------------------------------------------------------------------------

    def put(self, item: Item) -> None:
        """Have it recorded after all that was put before. Newer readings replace older ones that wait."""
        waiting = self._waiting
        if isinstance(item, reports.Meter) and len(waiting) > 1 and isinstance(waiting[-1], reports.Meter):
            waiting.pop()
        if len(waiting) >= _MOST_WAITING and isinstance(item, reports.Meter | reports.Status | reports.Noted):
            _LOST.inc()
            return
        waiting.append(item)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name=f"records of {self.charger_id}")

    async def _write(self) -> None:
        try:
            while self._waiting:
                item = self._waiting[0]
                try:
                    await self._record(item)
                except LedgerError as error:
                    log.error("not recorded", charger=self.charger_id, error=str(error))
                self._waiting.popleft()
        finally:
            self._writer = None

    async def _record(self, item: Item) -> None:
        match item:
            case Presence(online=True):
                held = await self._node.record(
                    reports.Connected(charger_id=self.charger_id, node=self._node.name, protocol=PROTOCOL)
                )
                self._generation = held.generation
                self.station.blocked = held.enrollment != "Accepted"
                await self._node.hold(self.charger_id, self._adapter)
            case Presence():
                await self._leave()
            case reports.Start():
                started = await self._node.record(item)
                self.transaction_id = started.transaction_id
            case reports.Meter():
                left = await self._node.record(replace(item, transaction_id=self.transaction_id))
                if left is not None:
                    self._left(self, left)
            case reports.Stop():
                await self._node.record(replace(item, transaction_id=self.transaction_id))
                self.transaction_id = None
            case _:
                await self._node.record(item)

    async def _leave(self) -> None:
        generation, self._generation = self._generation, None
        if generation is None:
            return
        await self._node.release(self.charger_id, self._adapter)
        await self._node.record(
            reports.Disconnected(charger_id=self.charger_id, node=self._node.name, generation=generation)
        )

    async def settled(self) -> None:
        """Back when nothing waits to be recorded."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    async def close(self) -> None:
        """The bridge ends: what waits is given up, the charger is nobody's."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait({self._writer})
        await self._leave()
