"""Links, watchers and committed events for the MQTT tests, on real brokers and a real Postgres."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import aiomqtt
import pytest
import pytest_asyncio
from msgspec import Struct, structs
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core import events
from csms.core.records import Event
from csms.db import outbox
from csms.db.driver import driver_connection
from csms.db.engine import create_engine
from csms.db.record_sql import EVENT_SQL
from csms.mqtt.client.config import LinkConfig
from csms.mqtt.client.link import BrokerLink
from csms.mqtt.client.publishing_link import PublishingLink
from tests.harness.waiting import until

_names = itertools.count()
WAIT_S = 20
# Mosquitto 2.0.11 hangs up after a publish it denies when this is 0, as the fixture sets it.
POLITE = "max_queued_messages 100000"


@contextlib.asynccontextmanager
async def running(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[list["asyncio.Task[Any]"]]:
    """Run these beside the test; a failure among them fails it."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


def config(broker: Any, version: str = "5", **changes: Any) -> LinkConfig:
    """For a `broker` with host, port and port_v5; quick to come back."""
    base = LinkConfig(
        host=broker.host,
        port=broker.port_v5 if version == "5" else broker.port,
        version=version,
        client_id="test-{node}",
        node=f"n{next(_names)}-{id(broker):x}",
        connect_timeout_s=5,
        reconnect_min_s=0.05,
        reconnect_max_s=0.2,
    )
    return structs.replace(base, **changes)


def pause(server: Any) -> None:
    """The broker neither reads nor answers, but its connections stand."""
    os.kill(server._process.pid, signal.SIGSTOP)


def resume(server: Any) -> None:
    os.kill(server._process.pid, signal.SIGCONT)


AnyLink = TypeVar("AnyLink", BrokerLink, PublishingLink)


@contextlib.asynccontextmanager
async def connected(link: AnyLink, *work: Coroutine[Any, Any, Any]) -> AsyncIterator[AnyLink]:
    async with running(link.run()):
        async with asyncio.timeout(WAIT_S):
            await link.wait_connected()
        async with running(*work):
            yield link


class Watcher:
    """An ordinary consumer, not our code: what it got, in order of arrival."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.messages: list[Any] = []  # aiomqtt.Message, whose properties no type declares
        self._client = client

    async def run(self) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            async for message in self._client.messages:
                self.messages.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [bytes(message.payload) for message in self.messages]

    def topics(self) -> list[str]:
        return [str(message.topic) for message in self.messages]

    async def got(self, count: int) -> list[Any]:
        await until(
            lambda: len(self.messages) >= count, what=lambda: f"{count} messages, got {len(self.messages)}"
        )
        return self.messages


@contextlib.asynccontextmanager
async def watching(
    broker: Any,
    *topics: str,
    version: str = "5",
    qos: int = 1,
    username: str | None = None,
    password: str | None = None,
) -> AsyncIterator[Watcher]:
    client = aiomqtt.Client(
        broker.host,
        broker.port_v5 if version == "5" else broker.port,
        protocol=aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311,
        username=username,
        password=password,
    )
    async with contextlib.AsyncExitStack() as stack:
        await client.__aenter__()
        stack.push_async_callback(_leave, client)
        for topic in topics:
            await client.subscribe(topic, qos=qos)
        watcher = Watcher(client)
        await stack.enter_async_context(running(watcher.run()))
        yield watcher


async def _leave(client: aiomqtt.Client) -> None:
    with contextlib.suppress(aiomqtt.MqttError):
        await client.__aexit__(None, None, None)


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


class EventHeader(Struct, rename="camel"):
    """A payload that is easy to recognise."""

    connector_id: int
    number: int
    filler: str = ""


class Log:
    """Commits events as the ledger does: rows of `events` and `outbox` in one transaction, seq per charger."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._seq: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self.committed: list[Event] = []

    def events(
        self, charger_ids: Iterable[str], *, kind: str = "started", filler: str = "", shift_s: float = 0
    ) -> list[Event]:
        made = []
        for charger_id in charger_ids:
            seq = self._seq[charger_id] = self._seq.get(charger_id, 0) + 1
            draft = events.EventDraft(
                category="transactions",
                event_type=kind,
                dedup_key=f"{charger_id}:{seq}",
                payload=EventHeader(1, seq, filler),  # type: ignore[arg-type]
            )
            made.append(
                events.render(
                    draft,
                    charger_id=charger_id,
                    seq=seq,
                    number=next(self._numbers),
                    now=datetime.now(UTC) + timedelta(seconds=shift_s),
                )
            )
        return made

    async def commit(self, rows: Sequence[Event]) -> Sequence[Event]:
        async with self._engine.connect() as connection:
            db = await driver_connection(connection)
            async with db.transaction():
                await EVENT_SQL.copy(db, rows)
                await db.copy_records_to_table(
                    "outbox",
                    records=[(outbox.lane(e.charger_id), e.charger_id, e.seq, e.recorded_at) for e in rows],
                    columns=("lane", "charger_id", "seq", "recorded_at"),
                )
        self.committed.extend(rows)
        return rows

    async def rows(self) -> list[dict[str, Any]]:
        """What the outbox holds."""
        return await self.query(
            "SELECT charger_id, seq, attempts, last_error, dead FROM outbox ORDER BY charger_id, seq"
        )

    async def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        async with self._engine.connect() as connection:
            db = await driver_connection(connection)
            return [dict(row) for row in await db.fetch(sql, *values)]

    async def empty(self) -> None:
        async def is_empty() -> bool:
            return not await self.rows()

        await until(is_empty)


@pytest.fixture
def log(engine: AsyncEngine) -> Log:
    return Log(engine)
