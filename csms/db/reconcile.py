"""Which open transactions look ended: their connector has been free, or their charger booted, for a while."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.reports import Reconcile

# All ages go by our own clock: `free_since` is the charge point's. A reading or a session's status since then
# says that it still charges. Reports that waited in the charge point may follow its first status for a while.
_ENDED = text("""
SELECT t.charger_id, t.id AS transaction_id, c.free_since, g.booted_at, c.reading_at
FROM transactions t
JOIN chargers g ON g.id = t.charger_id
LEFT JOIN connectors c ON c.charger_id = t.charger_id AND c.connector_id = t.connector_id
WHERE t.stopped_at IS NULL
  AND t.start_received_at <= :before
  AND (
    c.free_since IS NOT NULL
    AND 'Available' = (
      SELECT h.status FROM status_history h
      WHERE h.charger_id = t.charger_id AND h.connector_id = t.connector_id
        AND h.recorded_at BETWEEN t.start_received_at AND :before
      ORDER BY h.recorded_at DESC, h.id DESC LIMIT 1
    )
    AND NOT EXISTS (
      SELECT FROM status_history h
      WHERE h.charger_id = t.charger_id AND h.connector_id = t.connector_id
        AND h.recorded_at > :before AND h.status <> 'Available'
    )
    OR g.booted_at > t.start_received_at
    AND g.booted_at <= :before
    AND (
      c.status IN ('Charging', 'SuspendedEV', 'SuspendedEVSE') AND c.status_recorded_at >= g.booted_at
    ) IS NOT TRUE
    AND NOT EXISTS (
      SELECT FROM readings r
      WHERE r.charger_id = t.charger_id AND r.transaction_id = t.id AND r.received_at >= g.booted_at
    )
  )
  AND NOT EXISTS (
    SELECT FROM readings r
    WHERE r.charger_id = t.charger_id AND r.transaction_id = t.id AND r.received_at > :before
  )
ORDER BY t.id
LIMIT :limit
""")


async def ended(db: AsyncConnection, before: datetime, *, limit: int = 200) -> Sequence[Reconcile]:
    """Open transactions that have looked ended since `before` (our clock) or longer, oldest first."""
    rows = await db.execute(_ENDED, {"before": before, "limit": limit})
    return [Reconcile(**row) for row in rows.mappings()]


async def our_turn(db: AsyncConnection) -> bool:
    """Whether no other node reconciles now; held until this connection's transaction ends."""
    return bool(await db.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('csms.reconciler'))")))
