"""Open transactions that look ended: their connector has been Available, or their charger has booted, for a while.

And ended ones with late readings, which are in no bill yet.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.reports import Reconcile
from csms.db.rows import all_rows
from csms.db.tables import LATE

# All ages are by the node's clock, but `free_since` by the charger's. A reading, or a status of a charging connector,
# since then shows that the transaction goes on. Reports that waited in the charger may follow its first status.
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

# The condition is that of transactions_late_idx.
_LATE = text(f"""
SELECT t.charger_id, t.id AS transaction_id
FROM transactions t
WHERE {LATE}
  AND NOT EXISTS (
    SELECT FROM readings r
    WHERE r.charger_id = t.charger_id AND r.transaction_id = t.id AND r.received_at > :before
  )
ORDER BY t.id
LIMIT :limit
""")


async def ended(db: AsyncConnection, before: datetime, *, limit: int = 200) -> Sequence[Reconcile]:
    """Open transactions that have looked ended since `before` (the node's clock) or longer, oldest first."""
    return [Reconcile(**row) for row in await all_rows(db, _ENDED, {"before": before, "limit": limit})]


async def late(db: AsyncConnection, before: datetime, *, limit: int = 200) -> Sequence[Reconcile]:
    """Transactions with an inferred end whose readings show more energy, the last of them received before `before`."""
    return [Reconcile(**row) for row in await all_rows(db, _LATE, {"before": before, "limit": limit})]


async def our_turn(db: AsyncConnection) -> bool:
    """Whether no other node reconciles now: takes a lock until the end of the database transaction."""
    return bool(await db.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('csms.reconciler'))")))
