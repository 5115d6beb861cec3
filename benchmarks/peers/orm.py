"""The usual durable way: the `ocpp` package, SQLAlchemy's ORM with a commit per message, aiomqtt at QoS 1.

Tuned in the peer's favour: uvloop, validation in line, no log of frames, one shared engine and MQTT client.
`python -m benchmarks.peers.orm PORT DATABASE_URL MQTT_HOST MQTT_PORT`
"""

import contextlib
import json
import logging
import sys
from datetime import datetime

import aiomqtt
import ocpp.messages
import uvloop
import websockets
from ocpp.routing import on
from ocpp.v16 import call_result
from ocpp.v16.enums import Action
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.peers.in_memory import ChargePoint as InMemory

ocpp.messages.ASYNC_VALIDATION = False
logging.getLogger().setLevel(logging.WARNING)
logging.getLogger("ocpp").setLevel(logging.WARNING)


class Base(DeclarativeBase):
    pass


class Transaction(Base):
    __tablename__ = "peer_transactions"
    id: Mapped[int] = mapped_column(primary_key=True)
    charger_id: Mapped[str]
    connector_id: Mapped[int]
    id_tag: Mapped[str]
    meter_start: Mapped[int]
    started_at: Mapped[str]
    meter_stop: Mapped[int | None]
    stopped_at: Mapped[str | None]


class MeterValue(Base):
    __tablename__ = "peer_meter_values"
    id: Mapped[int] = mapped_column(primary_key=True)
    charger_id: Mapped[str]
    connector_id: Mapped[int]
    transaction_id: Mapped[int | None] = mapped_column(ForeignKey("peer_transactions.id"))
    sampled_at: Mapped[datetime]
    measurand: Mapped[str]
    value: Mapped[str]
    unit: Mapped[str | None]
    phase: Mapped[str | None]


class Status(Base):
    __tablename__ = "peer_statuses"
    id: Mapped[int] = mapped_column(primary_key=True)
    charger_id: Mapped[str]
    connector_id: Mapped[int]
    status: Mapped[str]
    error_code: Mapped[str]


sessions: async_sessionmaker[AsyncSession]
broker: aiomqtt.Client


async def tell(kind: str, charger_id: str, event: str, **payload: object) -> None:
    body = json.dumps({"clientId": charger_id, "eventType": event, "payload": payload})
    await broker.publish(f"csms/{kind}/{charger_id}/{event}", body, qos=1)


class ChargePoint(InMemory):
    @on(Action.status_notification)
    async def on_status_notification(self, connector_id: int, error_code: str, status: str, **kwargs):
        async with sessions() as session:
            session.add(
                Status(charger_id=self.id, connector_id=connector_id, status=status, error_code=error_code)
            )
            await session.commit()
        await tell("connectors", self.id, "status_changed", connectorId=connector_id, status=status)
        return call_result.StatusNotification()

    @on(Action.meter_values)
    async def on_meter_values(self, connector_id: int, meter_value: list, transaction_id=None, **kwargs):
        async with sessions() as session:
            for value in meter_value:
                for sample in value["sampled_value"]:
                    session.add(
                        MeterValue(
                            charger_id=self.id,
                            connector_id=connector_id,
                            transaction_id=transaction_id,
                            sampled_at=datetime.fromisoformat(value["timestamp"].rstrip("Z")),
                            measurand=sample["measurand"],
                            value=sample["value"],
                            unit=sample.get("unit"),
                            phase=sample.get("phase"),
                        )
                    )
            await session.commit()
        await tell("transactions", self.id, "meter_reading", connectorId=connector_id, values=meter_value)
        return call_result.MeterValues()

    @on(Action.start_transaction)
    async def on_start_transaction(
        self, connector_id: int, id_tag: str, meter_start: int, timestamp: str, **kwargs
    ):
        async with sessions() as session:
            transaction = Transaction(
                charger_id=self.id,
                connector_id=connector_id,
                id_tag=id_tag,
                meter_start=meter_start,
                started_at=timestamp,
            )
            session.add(transaction)
            await session.commit()
            number = transaction.id
        await tell("transactions", self.id, "started", transactionId=number, idTag=id_tag)
        return call_result.StartTransaction(transaction_id=number, id_tag_info={"status": "Accepted"})

    @on(Action.stop_transaction)
    async def on_stop_transaction(self, transaction_id: int, meter_stop: int, timestamp: str, **kwargs):
        async with sessions() as session:
            found = await session.scalar(select(Transaction).where(Transaction.id == transaction_id))
            found.meter_stop, found.stopped_at = meter_stop, timestamp
            await session.commit()
            energy_wh = meter_stop - found.meter_start
        await tell("transactions", self.id, "completed", transactionId=transaction_id, energyUsed=energy_wh)
        await tell("billing", self.id, "session_cost", transactionId=transaction_id, cost=energy_wh * 0.12)
        return call_result.StopTransaction()


async def on_connect(websocket):
    charge_point_id = websocket.request.path.strip("/").rsplit("/", 1)[-1]
    with contextlib.suppress(websockets.exceptions.ConnectionClosed):
        await ChargePoint(charge_point_id, websocket).start()


async def main():
    global sessions, broker  # noqa: PLW0603
    port, url, mqtt_host, mqtt_port = sys.argv[1:]
    engine = create_async_engine(
        # What stands behind the question mark is no name that SQLAlchemy could pass on.
        url.partition("?")[0].replace("postgresql://", "postgresql+asyncpg://"),
        pool_size=16,
        max_overflow=4,
        connect_args={"ssl": False},
    )
    async with engine.begin() as db:
        await db.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with aiomqtt.Client(mqtt_host, int(mqtt_port), max_inflight_messages=100) as broker:
        broker.pending_calls_threshold = 10_000
        server = await websockets.serve(
            on_connect, "127.0.0.1", int(port), subprotocols=["ocpp1.6"], backlog=4096
        )
        await server.wait_closed()


if __name__ == "__main__":
    uvloop.run(main())
