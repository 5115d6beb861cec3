"""A node without its edges: the real ledger on a real database, a clock to set, and a charger that obeys."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Command
from csms.api.deps import Api
from csms.core import reports
from csms.core.records import Event, Frame
from csms.core.reports import SampledValue
from csms.core.work import Policy
from csms.db.engine import create_engine
from csms.node.frame_log import FrameLog
from csms.node.ledger import Ledger
from csms.ocpp.operator_repair import repaired_report

ADMIN_TOKEN = "the-token-of-the-settings"


def sample(value: float, measurand: str = "Energy.Active.Import.Register", unit: str = "Wh") -> SampledValue:
    return SampledValue(value=str(value), measurand=measurand, unit=unit)


class World:
    """`record()` reports as an edge would. `api` is what create_app takes; `asked` what was sent to chargers."""

    def __init__(self, engine: AsyncEngine, now: datetime | None = None) -> None:
        self.engine = engine
        self.now = now or datetime.now(UTC).replace(microsecond=0)
        self.asked: list[tuple[str, Command]] = []
        self.answer: Mapping[str, Any] | Exception = {"status": "Accepted"}
        self.events: list[Event] = []
        self.ledger = Ledger(
            engine,
            Policy(enrollment="open", unknown_tags="accept"),
            on_commit=self.events.extend,
            clock=lambda: self.now,
        )
        self.frames = FrameLog(engine, gather_s=0.01)
        self.api = Api(
            engine=engine,
            send=self._send,
            check_command=self._check,
            admin_token=ADMIN_TOKEN,
            now=lambda: self.now,
            book=self._book,
        )
        self._messages = 0

    async def _send(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        self.asked.append((charger_id, command))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def _book(
        self, charger_id: str, action: str, payload: dict[str, Any], repair: reports.Repair
    ) -> Any:
        return await self.record(repaired_report(charger_id, action, payload, repair, self.now))

    @staticmethod
    def _check(action: str, payload: dict[str, Any]) -> list[str]:
        if action == "Reset" and payload.get("type") not in {"Hard", "Soft"}:
            return ["type: 'Hard' or 'Soft' is expected"]
        return []

    async def record(self, report: reports.Report[Any]) -> Any:
        return await self.ledger.record(report)

    def later(self, **kwargs: float) -> datetime:
        self.now += timedelta(**kwargs)
        return self.now

    async def connect(self, charger_id: str, **kwargs: Any) -> None:
        await self.record(
            reports.Connected(charger_id=charger_id, node="n1", remote_address="127.0.0.1", **kwargs)
        )
        await self.record(
            reports.Boot(charger_id=charger_id, vendor="Acme", model="One", serial_number="S-1")
        )

    async def status(self, charger_id: str, connector_id: int, status: str, error: str = "NoError") -> None:
        await self.record(
            reports.Status(
                charger_id=charger_id, connector_id=connector_id, status=status, error_code=error, at=self.now
            )
        )

    async def start(
        self, charger_id: str, connector_id: int = 1, tag: str = "TAG1", meter_wh: int = 1000
    ) -> int:
        self._messages += 1
        started = await self.record(
            reports.Start(
                charger_id=charger_id,
                connector_id=connector_id,
                id_tag=tag,
                key=f"{connector_id}/{tag}/{self.now.isoformat()}/{meter_wh}",
                meter_wh=meter_wh,
                at=self.now,
                message_id=f"m{self._messages}",
                digest=b"start%d" % self._messages,
            )
        )
        return int(started.transaction_id)

    async def meter(
        self, charger_id: str, transaction_id: int, energy_wh: int, power_w: int, connector_id: int = 1
    ) -> None:
        await self.record(
            reports.Meter(
                charger_id=charger_id,
                connector_id=connector_id,
                transaction_id=transaction_id,
                readings=[
                    reports.Reading(
                        at=self.now,
                        samples=[sample(energy_wh), sample(power_w, "Power.Active.Import", "W")],
                    )
                ],
            )
        )

    async def stop(self, charger_id: str, transaction_id: int, meter_wh: int | None, **kwargs: Any) -> None:
        self._messages += 1
        await self.record(
            reports.Stop(
                charger_id=charger_id,
                transaction_id=transaction_id,
                meter_wh=meter_wh,
                at=self.now,
                message_id=f"m{self._messages}",
                digest=b"stop%d" % self._messages,
                **kwargs,
            )
        )

    async def session(self, charger_id: str, *, tag: str = "TAG1", meter_wh: int = 1000) -> int:
        """A whole session of 5 kWh in an hour."""
        transaction_id = await self.start(charger_id, tag=tag, meter_wh=meter_wh)
        self.later(minutes=30)
        await self.meter(charger_id, transaction_id, meter_wh + 2500, 5000)
        self.later(minutes=30)
        await self.stop(charger_id, transaction_id, meter_wh + 5000)
        self.later(minutes=1)
        return transaction_id

    async def frame(
        self, charger_id: str, text: str, *, outgoing: bool = False, at: datetime | None = None
    ) -> None:
        """A raw frame, written down when this returns."""
        self.frames.put(
            Frame(
                charger_id=charger_id,
                at=at or self.now,
                outgoing=outgoing,
                kind="call",
                action="Heartbeat",
                message_id="1",
                frame=text.encode(),
            )
        )
        await self.record(reports.Seen(charger_id=charger_id))
        await self.frames.drain()


@contextlib.asynccontextmanager
async def running(database_url: str, now: datetime | None = None) -> AsyncIterator[World]:
    engine = create_engine(database_url)
    world = World(engine, now)
    tasks = [asyncio.create_task(world.ledger.run()), asyncio.create_task(world.frames.run())]
    try:
        yield world
    finally:
        world.api.closing.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await engine.dispose()
