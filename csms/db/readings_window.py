"""The registers and statuses of sessions, thinned to what their price depends on (core/session_timeline.ReadingsWindow)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from csms.core.session_timeline import ReadingsWindow
from csms.core.usage import Evidence
from csms.db.driver import DriverConnection

# Uses readings_charger_id_sampled_at_idx in the partitions since the start. A clock-aligned reading names no
# transaction, but is of the same register.
_REGISTERS = """
SELECT w.transaction_id, r.first_at, r.first_wh, r.last_at, r.last_wh
FROM unnest($1::int4[], $2::text[], $3::int4[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
            $7::timestamptz[], $8::text[], $9::float8[])
    AS w (transaction_id, charger_id, connector_id, since, until, received_since, received_until, edges, step_s)
CROSS JOIN LATERAL (
    SELECT min(sampled_at) AS first_at, (array_agg(energy_wh ORDER BY sampled_at, energy_wh))[1] AS first_wh,
        max(sampled_at) AS last_at, (array_agg(energy_wh ORDER BY sampled_at DESC, energy_wh DESC))[1] AS last_wh
    FROM readings
    WHERE readings.charger_id = w.charger_id AND sampled_at >= w.since AND sampled_at <= w.until
        AND received_at >= w.received_since AND received_at <= w.received_until AND connector_id = w.connector_id AND energy_wh IS NOT NULL
        AND (readings.transaction_id = w.transaction_id OR readings.transaction_id IS NULL)
    GROUP BY width_bucket(sampled_at, w.edges::timestamptz[]),
        floor(extract(epoch FROM sampled_at - w.since) / w.step_s)
) r
"""
_PLACE = ("transaction_id", "charger_id", "connector_id")
MOST_STATUSES = 200
# The newest statuses, by status_history_charger_id_recorded_at_idx.
_STATUSES = f"""
SELECT w.transaction_id, s.at, s.status
FROM unnest($1::int4[], $2::text[], $3::int4[], $4::timestamptz[], $5::timestamptz[],
            $6::timestamptz[])
    AS w (transaction_id, charger_id, connector_id, until, received_since, received_until)
CROSS JOIN LATERAL (
    SELECT coalesce(reported_at, recorded_at) AS at, status FROM status_history
    WHERE status_history.charger_id = w.charger_id AND recorded_at >= w.received_since
        AND recorded_at <= w.received_until AND connector_id = w.connector_id AND coalesce(reported_at, recorded_at) <= w.until
    ORDER BY recorded_at DESC LIMIT {MOST_STATUSES}
) s
"""


async def load(db: DriverConnection, windows: Sequence[ReadingsWindow]) -> dict[int, Evidence]:
    """By transaction id, with at most two statements for all sessions."""
    if not windows:
        return {}
    registers: dict[int, set[tuple[datetime, int]]] = {w.transaction_id: set() for w in windows}
    for number, first_at, first_wh, last_at, last_wh in await db.fetch(
        _REGISTERS,
        *_columns(windows, *_PLACE, "since", "until", "received_since", "received_until"),
        ["{" + ",".join(edge.isoformat() for edge in w.boundaries) + "}" for w in windows],
        [w.step_s for w in windows],
    ):
        registers[number] |= {(first_at, first_wh), (last_at, last_wh)}
    statuses: dict[int, list[tuple[datetime, str]]] = {w.transaction_id: [] for w in windows}
    if with_statuses := [w for w in windows if w.statuses]:
        for number, at, status in await db.fetch(
            _STATUSES,
            *_columns(with_statuses, *_PLACE, "until", "received_since", "received_until"),
        ):
            statuses[number].append((at, status))
    return {
        number: Evidence(registers=tuple(sorted(found)), statuses=tuple(statuses[number]))
        for number, found in registers.items()
    }


def _columns(windows: Sequence[ReadingsWindow], *names: str) -> list[list[Any]]:
    return [[getattr(w, name) for w in windows] for name in names]
