"""Retained state topics: what is true now, for those who come late. Events say what happened, state what is.

Events only say *which* charger changed. What is published is read from the database, all rows of a charger
in one snapshot, so it is right however many changes came together; `seq` in it is the last event it includes.
After each (re)connect everything of this node's chargers is published again: brokers forget.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import structlog
from msgspec import UNSET, Meta, Struct, UnsetType
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core import pricing, session_course
from csms.core.events import kwh, timestamp, topic_level
from csms.core.payloads import (
    ConnectorId,
    Currency,
    EnergyKwh,
    IdTag,
    Money,
    NodeName,
    PowerKw,
    Timestamp,
    TransactionId,
)
from csms.core.records import Connector, Event, Transaction
from csms.core.usage import Evidence
from csms.db import charger_snapshot as rows
from csms.db.charger_snapshot import StateSnapshot
from csms.db.driver import driver_connection
from csms.mqtt.client.connection import MqttMessage
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.link import Presence, prefixed
from csms.mqtt.client.publisher import Outcome
from csms.mqtt.client.supervised import PublishingLink
from csms.mqtt.messages import METER_READING

log = structlog.get_logger()
_PUBLISHED = Counter("csms_mqtt_state_total", "Retained state messages, by what became of them.", ["result"])
_AT_ONCE = 200
_GATHER_S = 0.05
_READINGS_EVERY_S = 1.0
_RETRY_S = 1.0

LastSeq = Annotated[
    int, Meta(description="The charger's last event included: apply those with a higher one.", ge=0)
]


class ServiceStatus(Struct, rename="camel", kw_only=True):
    """`csms/service/{node}/status`. Ignore an `offline` whose session is not that of the last `online`."""

    status: Literal["online", "offline"]
    session: Annotated[str, Meta(description="Names one connection of one node.")]
    # A will is written at connect time: when it will be true nobody knows.
    since: Timestamp | UnsetType = UNSET


class ConnectionState(Struct, rename="camel", kw_only=True):
    """`csms/state/{id}/connection`. Believe `online` only while the service's own status says online."""

    online: bool
    since: Timestamp | UnsetType = UNSET
    node: NodeName | UnsetType = UNSET
    seq: LastSeq = 0


class ConnectorState(Struct, rename="camel", kw_only=True):
    """`csms/state/{id}/connectors/{n}`: the last reported status."""

    connector_id: ConnectorId
    status: str
    error_code: str
    transaction_id: TransactionId | UnsetType = UNSET
    since: Timestamp | UnsetType = UNSET
    seq: LastSeq = 0


class TransactionState(Struct, rename="camel", kw_only=True):
    """`csms/state/{id}/transactions/{n}`: the running transaction, as of its last reading. Gone when it ends."""

    transaction_id: TransactionId
    connector_id: ConnectorId
    id_tag: IdTag
    start_time: Timestamp
    session_energy: EnergyKwh
    running_cost: Money
    currency: Currency
    current_power: PowerKw | UnsetType = UNSET
    reading_time: Timestamp | UnsetType = UNSET
    seq: LastSeq = 0


def service_presence(
    node: str, prefix: str = "", clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Presence:
    """`csms/service/{node}/status`, for a Link: online, offline, last will."""
    topic = prefixed(prefix, f"csms/service/{topic_level(node)}/status")

    def presence(session: str, online: bool) -> MqttMessage:
        content = ServiceStatus(
            status="online" if online else "offline",
            session=session,
            since=timestamp(clock()) if online else UNSET,
        )
        return MqttMessage(topic=topic, body=msgspec.json.encode(content), retain=True)

    return presence


def described(snapshot: StateSnapshot) -> dict[str, Struct | None]:
    """A charger's state as {the topic's end: content}; None: delete it."""
    state = snapshot.state
    running = {t.connector_id: t for t in snapshot.transactions}
    since = state.connected_at if state.online else state.last_seen_at
    topics: dict[str, Struct | None] = {
        "connection": ConnectionState(
            online=state.online,
            since=timestamp(since) if since else UNSET,
            node=state.node or UNSET,
            seq=state.event_seq,
        )
    }
    for connector in snapshot.connectors:
        number, transaction = connector.connector_id, running.get(connector.connector_id)
        if connector.status is not None:
            topics[f"connectors/{number}"] = ConnectorState(
                connector_id=number,
                status=connector.status,
                error_code=connector.error_code,
                transaction_id=transaction.id if transaction else UNSET,
                since=timestamp(connector.status_recorded_at) if connector.status_recorded_at else UNSET,
                seq=state.event_seq,
            )
        topics[f"transactions/{number}"] = _running(transaction, connector, snapshot) if transaction else None
    for number, transaction in running.items():
        if f"transactions/{number}" not in topics:
            topics[f"transactions/{number}"] = _running(transaction, None, snapshot)
    return topics


def _running(
    transaction: Transaction, connector: Connector | None, snapshot: StateSnapshot
) -> TransactionState:
    energy_wh, as_of = 0, transaction.started_at
    content = TransactionState(
        transaction_id=transaction.id,
        connector_id=transaction.connector_id,
        id_tag=transaction.id_tag,
        start_time=timestamp(transaction.started_at),
        session_energy=0.0,
        running_cost=0.0,
        currency=transaction.tariff.currency,
        seq=snapshot.state.event_seq,
    )
    if (
        connector is not None
        and connector.reading_transaction_id == transaction.id
        and connector.reading_at is not None
    ):
        if connector.energy_wh is not None:
            energy_wh = max(connector.energy_wh - transaction.meter_start_wh, 0)
        if connector.power_w is not None:
            content.current_power = kwh(connector.power_w)
        content.reading_time = timestamp(connector.reading_at)
        as_of = max(as_of, connector.reading_at)
    tariff, course = transaction.tariff, None
    if tariff.needs_course:
        evidence = snapshot.evidence.get(transaction.id, Evidence())
        course = session_course.so_far(transaction, as_of, energy_wh, evidence, as_of)
    seconds = pricing.duration_s(transaction.started_at, as_of)
    content.session_energy = kwh(energy_wh)
    content.running_cost = float(pricing.session_cost(tariff, energy_wh, seconds, course).amount)
    return content


class StatePublisher:
    """`notify` belongs into the ledger's `on_commit`, `connection_changed` where a charger comes or goes.

    `discovery`: what else is to be published of a charger, as {topic: content}, when that has changed; and all
    of it again (`publish_all`) when somebody asks.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        link: PublishingLink,
        node: str,
        *,
        prefix: str = "",
        qos: int = 1,
        discovery: Callable[[StateSnapshot], dict[str, dict[str, Any]]] | None = None,
    ) -> None:
        self._engine = engine
        self._link = link
        self._node = node
        self._prefix = prefix
        self._qos = qos
        self._discovery = discovery
        self._discovered: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()
        self._some = asyncio.Event()
        self._all = False
        self._published: dict[str, dict[str, Any]] = {}
        self._later: set[str] = set()
        link.on_connected(self._rebuild)

    def notify(self, events: Sequence[Event]) -> None:
        """These were committed. Readings wait for those of other chargers, up to a second: what is read and published
        together costs less, and once a second and charger is enough. Anything else goes out soon.
        """
        soon = set()
        for event in events:
            if event.event_type != METER_READING:
                soon.add(event.charger_id)
                continue
            if not self._later:
                asyncio.get_running_loop().call_later(_READINGS_EVERY_S, self._now_due)
            self._later.add(event.charger_id)
        if soon:
            self.changed(soon)

    def _now_due(self) -> None:
        due, self._later = self._later, set()
        self.changed(due)

    def changed(self, charger_ids: Iterable[str]) -> None:
        """Something of these chargers was committed."""
        if self._link.connected:
            self._changed.update(charger_ids)
            self._some.set()

    def connection_changed(self, charger_id: str) -> None:
        """A charger came or went. What another node may have published of it meanwhile is not known here."""
        self._published.pop(charger_id, None)
        self.changed([charger_id])

    def publish_all(self) -> None:
        """Everything of this node's chargers, again."""
        self._rebuild()

    def _rebuild(self) -> None:
        self._all = True
        self._some.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._some.wait()
            await self._link.wait_connected()
            self._some.clear()
            try:
                await self._step()
            except Exception as error:
                log.warning("state not published", error=str(error) or type(error).__name__)
                self._some.set()
                await asyncio.sleep(_RETRY_S)
                continue
            await asyncio.sleep(_GATHER_S)

    async def _step(self) -> None:
        if self._all:
            ours = await self._read(lambda db: rows.chargers_of(db, self._node))
            self._published.clear()
            self._discovered.clear()
            self._changed.update(ours)
            self._all = False
        while self._changed and not self._all:
            some = sorted(self._changed)[:_AT_ONCE]
            # Before the read: what changes during it must be read again.
            self._changed.difference_update(some)
            try:
                snapshots = await self._read(lambda db, some=some: rows.snapshots(db, some))  # type: ignore[misc]
                await self._publish_all(snapshots)
            except BaseException:
                self._changed.update(some)
                raise

    async def _read(self, query: Callable[[Any], Awaitable[Any]]) -> Any:
        async with self._engine.connect() as connection:
            return await query(await driver_connection(connection))

    async def _publish_all(self, snapshots: Sequence[StateSnapshot]) -> None:
        """Back when the broker has answered to all of it."""
        answered = asyncio.get_running_loop().create_future()
        left = 1

        def one_less(charger_id: str, end: str, content: Struct | None, outcome: Outcome) -> None:
            nonlocal left
            left -= 1
            self._settled(charger_id, end, content, outcome)
            if not left and not answered.done():
                answered.set_result(None)

        def discovered(topic: str, content: dict[str, Any], outcome: Outcome) -> None:
            nonlocal left
            left -= 1
            if isinstance(outcome, PublishRefused):
                log.warning("discovery refused", topic=topic, error=str(outcome))
            if not isinstance(outcome, BrokerDisconnected):
                self._discovered[topic] = content
            if not left and not answered.done():
                answered.set_result(None)

        for snapshot in snapshots:
            charger_id = snapshot.state.charger_id
            published = self._published.setdefault(charger_id, {})
            for end, content in described(snapshot).items():
                if end not in published or published[end] != _apart_from_seq(content):
                    left += 1
                    topic = prefixed(self._prefix, f"csms/state/{topic_level(charger_id)}/{end}")
                    body = b"" if content is None else msgspec.json.encode(content)
                    message = MqttMessage(topic=topic, body=body, qos=self._qos, retain=True)
                    self._link.begin(message, partial(one_less, charger_id, end, content))
            configs = {} if self._discovery is None else self._discovery(snapshot)
            for topic, config in configs.items():
                if self._discovered.get(topic) != config:
                    left += 1
                    message = MqttMessage(
                        topic=topic, body=msgspec.json.encode(config), qos=self._qos, retain=True
                    )
                    self._link.begin(message, partial(discovered, topic, config))
        left -= 1
        if left:
            await answered

    def _settled(self, charger_id: str, end: str, content: Struct | None, outcome: Outcome) -> None:
        if isinstance(outcome, BrokerDisconnected):
            return  # all of it is published again after the reconnect
        if isinstance(outcome, PublishRefused):
            _PUBLISHED.labels("refused").inc()
            log.warning("state refused", charger=charger_id, topic=end, error=str(outcome))
        else:
            _PUBLISHED.labels("published").inc()
        self._published.setdefault(charger_id, {})[end] = _apart_from_seq(content)


def _apart_from_seq(content: Struct | None) -> Any:
    """Every event raises seq; that alone is no news."""
    return None if content is None else msgspec.structs.replace(content, seq=0)
