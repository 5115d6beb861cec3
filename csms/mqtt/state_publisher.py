"""Publishes retained state and Home Assistant's discovery of this node's chargers.

Events only say which charger has changed. What is published is read from the database, all rows of a charger in one
database snapshot, so it is right however many changes come together; its `seq` is the last event it includes. After each
connect everything of this node's chargers is published again, since a broker may have lost it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.aio import FailureLog
from csms.core.events import topic_level
from csms.core.records import Event
from csms.db import charger_snapshot
from csms.db.charger_snapshot import StateSnapshot
from csms.db.driver import driver_connection
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.link import prefixed
from csms.mqtt.client.message import MqttMessage
from csms.mqtt.client.publisher import PublishCallback, PublishOutcome
from csms.mqtt.client.publishing_link import PublishingLink
from csms.mqtt.messages import METER_READING
from csms.mqtt.state import state_topics

log = structlog.get_logger()
_PUBLISHED = Counter("csms_mqtt_state_total", "Retained state messages, by what became of them.", ["result"])
_BATCH = 200
_GATHER_S = 0.05
_RETRY_S = 1.0

DiscoveryConfigs = Callable[[StateSnapshot], dict[str, dict[str, Any]]]


class StatePublisher:
    """The ledger calls `notify` after each commit; `connection_changed` is for a charger that comes or goes.

    `discovery` returns further retained payloads of a charger by topic. They are published when they change, and all of
    them again on `publish_all`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        link: PublishingLink,
        node: str,
        *,
        prefix: str = "",
        discovery: DiscoveryConfigs | None = None,
        readings_every_s: float = 1.0,
    ) -> None:
        self._engine = engine
        self._link = link
        self._node = node
        self._prefix = prefix
        self._discovery = discovery
        self._readings_every_s = readings_every_s
        self._discovered: dict[str, dict[str, Any]] = {}
        self._published: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()
        self._delayed: set[str] = set()
        self._all_due = False
        self._wake = asyncio.Event()
        link.on_connected(self.publish_all)

    def notify(self, events: Sequence[Event]) -> None:
        """Take note of committed events, to publish the state of their chargers soon.

        Readings wait `readings_every_s` for those of other chargers: reading and publishing them together costs less, and
        once a second per charger is enough.
        """
        soon = set()
        for event in events:
            if event.event_type != METER_READING:
                soon.add(event.charger_id)
                continue
            if not self._delayed:
                asyncio.get_running_loop().call_later(self._readings_every_s, self._publish_delayed)
            self._delayed.add(event.charger_id)
        if soon:
            self.changed(soon)

    def _publish_delayed(self) -> None:
        due, self._delayed = self._delayed, set()
        self.changed(due)

    def changed(self, charger_ids: Iterable[str]) -> None:
        """Publish what has changed of these chargers."""
        if self._link.connected:
            self._changed.update(charger_ids)
            self._wake.set()

    def connection_changed(self, charger_id: str) -> None:
        """Publish everything of a charger: another node may have published its state meanwhile."""
        self._published.pop(charger_id, None)
        self.changed([charger_id])

    def publish_all(self) -> None:
        """Publish everything of this node's chargers again."""
        self._all_due = True
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        failures = FailureLog("state_not_published")
        while True:
            await self._wake.wait()
            await self._link.wait_connected()
            self._wake.clear()
            with failures:
                await self._publish_due()
            if failures.error is not None:
                self._wake.set()
            await asyncio.sleep(_GATHER_S if failures.error is None else _RETRY_S)

    async def _publish_due(self) -> None:
        if self._all_due:
            own = await self._read(lambda db: charger_snapshot.chargers_of(db, self._node))
            self._published.clear()
            self._discovered.clear()
            self._changed.update(own)
            self._all_due = False
        while self._changed and not self._all_due:
            batch = sorted(self._changed)[:_BATCH]
            # Before the read: what changes during it has to be read again.
            self._changed.difference_update(batch)
            try:
                snapshots = await self._read(partial(charger_snapshot.snapshots, charger_ids=batch))
                await self._publish(snapshots)
            except BaseException:
                self._changed.update(batch)
                raise

    async def _read(self, query: Callable[[Any], Awaitable[Any]]) -> Any:
        async with self._engine.connect() as connection:
            return await query(await driver_connection(connection))

    async def _publish(self, snapshots: Sequence[StateSnapshot]) -> None:
        """Publish what differs from the state published before. Returns when the broker has answered all of it."""
        messages = [message for snapshot in snapshots for message in self._messages(snapshot)]
        unanswered = len(messages)
        all_answered = asyncio.get_running_loop().create_future()

        def answered(settle: PublishCallback, outcome: PublishOutcome) -> None:
            nonlocal unanswered
            settle(outcome)
            unanswered -= 1
            if not unanswered and not all_answered.done():
                all_answered.set_result(None)

        for message, settle in messages:
            self._link.begin(message, partial(answered, settle))
        if messages:
            await all_answered

    def _messages(self, snapshot: StateSnapshot) -> Iterator[tuple[MqttMessage, PublishCallback]]:
        charger_id = snapshot.state.charger_id
        published = self._published.setdefault(charger_id, {})
        for level, content in state_topics(snapshot).items():
            if level not in published or published[level] != _without_seq(content):
                topic = prefixed(self._prefix, f"csms/state/{topic_level(charger_id)}/{level}")
                body = b"" if content is None else msgspec.json.encode(content)
                yield self._retained(topic, body), partial(self._settle_state, charger_id, level, content)
        configs = {} if self._discovery is None else self._discovery(snapshot)
        for topic, config in configs.items():
            if self._discovered.get(topic) != config:
                body = msgspec.json.encode(config)
                yield self._retained(topic, body), partial(self._settle_discovery, topic, config)

    def _retained(self, topic: str, body: bytes) -> MqttMessage:
        return MqttMessage(topic=topic, body=body, retain=True)

    def _settle_state(
        self, charger_id: str, level: str, content: Struct | None, outcome: PublishOutcome
    ) -> None:
        if isinstance(outcome, BrokerDisconnected):
            return  # everything is published again after the reconnect
        if isinstance(outcome, PublishRefused):
            _PUBLISHED.labels("refused").inc()
            log.warning("state_refused", charger=charger_id, topic=level, error=str(outcome))
        else:
            _PUBLISHED.labels("published").inc()
        self._published.setdefault(charger_id, {})[level] = _without_seq(content)

    def _settle_discovery(self, topic: str, config: dict[str, Any], outcome: PublishOutcome) -> None:
        if isinstance(outcome, BrokerDisconnected):
            return
        if isinstance(outcome, PublishRefused):
            log.warning("discovery_refused", topic=topic, error=str(outcome))
        self._discovered[topic] = config


def _without_seq(content: Struct | None) -> Any:
    """For comparison: every event raises seq, which alone is no change of the state."""
    return None if content is None else msgspec.structs.replace(content, seq=0)
