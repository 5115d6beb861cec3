"""A node without its edges: the real ledger on a real database, a clock to set, and a charger that obeys."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import AdapterHost, Command
from csms.core import reports
from csms.core.records import Event, Frame
from csms.core.reports import SampledValue
from csms.core.work import Policy
from csms.db.engine import create_engine
from csms.node.frame_log import FrameLog
from csms.node.ledger import Ledger
from csms.node.node import Node
from csms.service.context import ServiceContext

ADMIN_TOKEN = "the-token-of-the-settings"


def sample(value: float, measurand: str = "Energy.Active.Import.Register", unit: str = "Wh") -> SampledValue:
    return SampledValue(value=str(value), measurand=measurand, unit=unit)


class AnsweringAdapter:
    """Answers every command with `node.answer`."""

    def __init__(self, node: "HarnessNode") -> None:
        self._node = node

    async def run(self, node: AdapterHost) -> None:
        raise AssertionError

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        self._node.asked.append((charger_id, command))
        if isinstance(self._node.answer, Exception):
            raise self._node.answer
        return self._node.answer

    async def hang_up(self, charger_id: str, generation: int) -> None:
        raise AssertionError


class HarnessNode(Node):
    """A node that holds every charger it is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: list[tuple[str, Command]] = []
        self.answer: Mapping[str, Any] | Exception = {"status": "Accepted"}
        self._adapter = AnsweringAdapter(self)

    async def send(self, charger_id: str, command: Command) -> dict[str, Any]:
        await self.hold(charger_id, self._adapter)
        return await super().send(charger_id, command)


class ApiHarness:
    """`record()` reports as an edge would. `context` is what create_app takes; `asked` what was sent to chargers."""

    def __init__(self, engine: AsyncEngine, now: datetime | None = None) -> None:
        self.engine = engine
        self.now = now or datetime.now(UTC).replace(microsecond=0)
        self.events: list[Event] = []
        self.ledger = Ledger(
            engine,
            Policy(enrollment="open", unknown_tags="accept"),
            on_commit=self.events.extend,
            clock=lambda: self.now,
        )
        self.frames = FrameLog(engine, gather_s=0.01)
        self.node = HarnessNode("n1", engine, self.ledger, self.frames)
        self.context = ServiceContext(node=self.node, admin_token=ADMIN_TOKEN, now=lambda: self.now)
        self._messages = 0

    @property
    def asked(self) -> list[tuple[str, Command]]:
        return self.node.asked

    @property
    def answer(self) -> Mapping[str, Any] | Exception:
        return self.node.answer

    @answer.setter
    def answer(self, answer: Mapping[str, Any] | Exception) -> None:
        self.node.answer = answer

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
async def running(database_url: str, now: datetime | None = None) -> AsyncIterator[ApiHarness]:
    engine = create_engine(database_url)
    world = ApiHarness(engine, now)
    tasks = [asyncio.create_task(world.ledger.run()), asyncio.create_task(world.frames.run())]
    try:
        yield world
    finally:
        world.context.closing.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await engine.dispose()
