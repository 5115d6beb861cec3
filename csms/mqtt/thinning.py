"""Fewer meter readings, if the operator wants so: at most one in a while per connector, never the telling ones."""

from datetime import datetime
from typing import Any

import msgspec

from csms.core.records import Event
from csms.mqtt.messages import METER_READING

_TELLING = frozenset({"Transaction.Begin", "Transaction.End", "Interruption.Begin", "Interruption.End"})


class _Payload(msgspec.Struct, rename="camel"):
    connector_id: int
    transaction_id: int | None = None
    measurands: dict[str, dict[str, Any]] = {}


class _Body(msgspec.Struct):
    payload: _Payload


_decode = msgspec.json.Decoder(_Body).decode


class ReadingThinning:
    """Remembers when each connector's last reading went out. Event times decide, so a backlog is thinned too."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last: dict[tuple[str, int], tuple[int, int | None, datetime]] = {}

    def wanted(self, event: Event) -> bool:
        """False for a reading that may be left out: not a transaction's first or last, nor the first since
        the connector's status changed, and less than the interval after the one before."""
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
            and last[0] != event.seq  # else it is the same one again, after a lost connection
            and last[1] == payload.transaction_id
            and 0 <= (event.recorded_at - last[2]).total_seconds() < self._interval_s
            and contexts.isdisjoint(_TELLING)
        ):
            return False
        self._last[connector] = (event.seq, payload.transaction_id, event.recorded_at)
        return True
