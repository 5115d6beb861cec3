"""Retained state: what is true now, for clients that connect later. Events say what has happened.

This module has the topics and their content; csms/mqtt/state_publisher.py publishes them.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from csms.core import pricing, session_timeline
from csms.core.events import kwh, timestamp, topic_level
from csms.core.payloads import (
    ConnectorId,
    EnergyKwh,
    EventCurrency,
    EventIdTag,
    EventMoney,
    EventTimestamp,
    HistoryEpoch,
    NodeName,
    PowerKw,
    TransactionId,
)
from csms.core.records import Connector, Transaction
from csms.core.usage import Evidence
from csms.db.charger_snapshot import StateSnapshot
from csms.mqtt.client.link import PresenceMessage, prefixed
from csms.mqtt.client.message import MqttMessage

LastSeq = Annotated[
    int, Meta(description="The charger's last event included: apply those with a higher one.", ge=0)
]


class ServiceStatus(Struct, rename="camel", kw_only=True):
    """`csms/service/{node}/status`. Ignore an `offline` whose session is not that of the last `online`."""

    status: Literal["online", "offline"]
    session: Annotated[str, Meta(description="Names one connection of one node.")]
    # Absent from a last will, which is written when the connection is made.
    since: EventTimestamp | UnsetType = UNSET


class ConnectionState(Struct, rename="camel", kw_only=True):
    """`csms/state/{id}/connection`. Believe `online` only while the service's own status says online."""

    online: bool
    since: EventTimestamp | UnsetType = UNSET
    node: NodeName | UnsetType = UNSET
    seq: LastSeq = 0
    history_epoch: HistoryEpoch | UnsetType = UNSET


class ConnectorState(Struct, rename="camel", kw_only=True):
    """`csms/state/{id}/connectors/{n}`: the last reported status."""

    connector_id: ConnectorId
    status: str
    error_code: str
    transaction_id: TransactionId | UnsetType = UNSET
    since: EventTimestamp | UnsetType = UNSET
    seq: LastSeq = 0
    history_epoch: HistoryEpoch | UnsetType = UNSET


class TransactionState(Struct, rename="camel", kw_only=True):
    """`csms/state/{id}/transactions/{n}`: the running transaction, as of its last reading. Gone when it ends."""

    transaction_id: TransactionId
    connector_id: ConnectorId
    id_tag: EventIdTag
    start_time: EventTimestamp
    session_energy: EnergyKwh
    running_cost: EventMoney
    currency: EventCurrency
    current_power: PowerKw | UnsetType = UNSET
    reading_time: EventTimestamp | UnsetType = UNSET
    seq: LastSeq = 0
    history_epoch: HistoryEpoch | UnsetType = UNSET


def service_presence(
    node: str, prefix: str = "", clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> PresenceMessage:
    """Return what BrokerLink publishes as presence: `csms/service/{node}/status`, online, offline or as last will."""
    topic = prefixed(prefix, f"csms/service/{topic_level(node)}/status")

    def presence(session: str, online: bool) -> MqttMessage:
        content = ServiceStatus(
            status="online" if online else "offline",
            session=session,
            since=timestamp(clock()) if online else UNSET,
        )
        return MqttMessage(topic=topic, body=msgspec.json.encode(content), retain=True)

    return presence


def state_topics(snapshot: StateSnapshot) -> dict[str, Struct | None]:
    """Return a charger's state as {last levels of the topic: content}. Content None: the topic is to be deleted."""
    state = snapshot.state
    transactions = {transaction.connector_id: transaction for transaction in snapshot.transactions}
    since = state.connected_at if state.online else state.last_seen_at
    topics: dict[str, Struct | None] = {
        "connection": ConnectionState(
            online=state.online,
            since=timestamp(since) if since else UNSET,
            node=state.node or UNSET,
            seq=state.event_seq,
            history_epoch=snapshot.history_epoch or UNSET,
        )
    }
    for connector in snapshot.connectors:
        number, transaction = connector.connector_id, transactions.get(connector.connector_id)
        if connector.status is not None:
            topics[f"connectors/{number}"] = ConnectorState(
                connector_id=number,
                status=connector.status,
                error_code=connector.error_code,
                transaction_id=transaction.id if transaction else UNSET,
                since=timestamp(connector.status_recorded_at) if connector.status_recorded_at else UNSET,
                seq=state.event_seq,
                history_epoch=snapshot.history_epoch or UNSET,
            )
        topics[f"transactions/{number}"] = (
            _transaction_state(transaction, connector, snapshot) if transaction else None
        )
    for number, transaction in transactions.items():
        if f"transactions/{number}" not in topics:
            topics[f"transactions/{number}"] = _transaction_state(transaction, None, snapshot)
    return topics


def _transaction_state(
    transaction: Transaction, connector: Connector | None, snapshot: StateSnapshot
) -> TransactionState:
    energy_wh, power_w, read_at = 0, None, None
    if connector is not None and connector.reading_transaction_id == transaction.id:
        read_at = connector.reading_at
    if connector is not None and read_at is not None:
        power_w = connector.power_w
        energy_wh = connector.session_wh(transaction.id) or 0
    as_of = max(transaction.started_at, read_at or transaction.started_at)
    tariff, timeline = transaction.tariff, None
    if tariff.needs_timeline:
        evidence = snapshot.evidence.get(transaction.id, Evidence())
        timeline = session_timeline.running_timeline(transaction, as_of, energy_wh, evidence, as_of)
    seconds = pricing.duration_s(transaction.started_at, as_of)
    return TransactionState(
        transaction_id=transaction.id,
        connector_id=transaction.connector_id,
        id_tag=transaction.id_tag,
        start_time=timestamp(transaction.started_at),
        session_energy=kwh(energy_wh),
        running_cost=float(pricing.session_cost(tariff, energy_wh, seconds, timeline).amount),
        currency=tariff.currency,
        current_power=UNSET if power_w is None else kwh(power_w),
        reading_time=UNSET if read_at is None else timestamp(read_at),
        seq=snapshot.state.event_seq,
        history_epoch=snapshot.history_epoch or UNSET,
    )
