"""Fewer meter readings (MQTT_METER_MIN_INTERVAL_S): at most one in an interval per connector, if it says nothing new."""

from datetime import datetime
from typing import Any

import msgspec

from csms.core.records import Event
from csms.mqtt.messages import METER_READING

_ALWAYS_PUBLISHED = frozenset(
    {"Transaction.Begin", "Transaction.End", "Interruption.Begin", "Interruption.End"}
)


class _Payload(msgspec.Struct, rename="camel"):
    connector_id: int
    transaction_id: int | None = None
    measurands: dict[str, dict[str, Any]] = {}


class _Body(msgspec.Struct):
    payload: _Payload


_decode = msgspec.json.Decoder(_Body).decode


class ReadingThinning:
    """Keeps the time of each connector's last published reading. Event times count, so a backlog is thinned too."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last: dict[tuple[str, int], tuple[int, int | None, datetime]] = {}

    def passes(self, event: Event) -> bool:
        """Whether to publish an event. False only for a reading less than the interval after the one before.

        A transaction's first and last reading pass, and the first one after a change of the connector's status.
        """
        if not self._interval_s or event.event_type not in {METER_READING, "status_changed"}:
            return True
        payload = _decode(event.body).payload
        connector = (event.charger_id, payload.connector_id)
        if event.event_type != METER_READING:
            self._last.pop(connector, None)
            return True
        last = self._last.get(connector)
        contexts = {measured.get("context") for measured in payload.measurands.values()}
        if (
            last is not None
            and last[0] != event.seq  # otherwise it is the same event again, after a lost connection
            and last[1] == payload.transaction_id
            and 0 <= (event.recorded_at - last[2]).total_seconds() < self._interval_s
            and contexts.isdisjoint(_ALWAYS_PUBLISHED)
        ):
            return False
        self._last[connector] = (event.seq, payload.transaction_id, event.recorded_at)
        return True
