"""Sums over all chargers: the figures at the top of the console, and those of /metrics. Read-only."""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import ColumnElement, FromClause, ScalarSelect, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.db.audit_runs import OPEN_FINDING
from csms.db.audit_tables import audit_findings, audit_runs
from csms.db.event_tables import outbox
from csms.db.tables import charger_states, chargers, connectors, quarantine, transactions

# A broker that is away for days leaves millions of events: counting further only costs time.
MOST_COUNTED = 100_000


class NetworkTotals(Struct, frozen=True, kw_only=True):
    """`energy_today_wh`: of ended transactions whose accounting time is in the day, and of running ones so far."""

    chargers: int
    online: int
    pending: int
    active: int
    power_w: int
    energy_today_wh: int


async def network_totals(db: AsyncConnection, since: datetime, until: datetime) -> NetworkTotals:
    """`since` and `until` are the begin and the end of the day."""
    counted = (
        await db.execute(
            select(
                func.count(),
                func.count().filter(charger_states.c.online),
                func.count().filter(chargers.c.enrollment == "Pending"),
            )
            .select_from(chargers)
            .outerjoin(charger_states, charger_states.c.charger_id == chargers.c.id)
        )
    ).one()
    gained = connectors.c.register["last"]["energy_wh"].as_integer()
    running = (
        await db.execute(
            select(
                func.count(),
                func.coalesce(func.sum(connectors.c.power_w).filter(charger_states.c.online), 0),
                func.coalesce(func.sum(gained), 0),
            )
            .select_from(transactions)
            .outerjoin(
                connectors,
                and_(
                    connectors.c.charger_id == transactions.c.charger_id,
                    connectors.c.connector_id == transactions.c.connector_id,
                    connectors.c.reading_transaction_id == transactions.c.id,
                ),
            )
            .outerjoin(charger_states, charger_states.c.charger_id == transactions.c.charger_id)
            .where(transactions.c.stopped_at.is_(None))
        )
    ).one()
    ended = await db.scalar(
        select(func.coalesce(func.sum(transactions.c.energy_wh), 0)).where(
            transactions.c.accounting_at >= since,
            transactions.c.accounting_at < until,
            transactions.c.stopped_at.is_not(None),
        )
    )
    return NetworkTotals(
        chargers=counted[0],
        online=counted[1],
        pending=counted[2],
        active=running[0],
        power_w=int(running[1]),
        energy_today_wh=int(running[2]) + int(ended or 0),
    )


async def gauges(db: AsyncConnection) -> dict[str, float | None]:
    """For /metrics: connected chargers, open transactions, events in the outbox, unresolved quarantine, and the audit."""

    def count(table: FromClause, *where: ColumnElement[bool]) -> ScalarSelect[int]:
        return select(func.count()).select_from(table).where(*where).scalar_subquery()

    query = select(
        count(charger_states, charger_states.c.online).label("chargers_connected"),
        count(transactions, transactions.c.stopped_at.is_(None)).label("transactions_open"),
        count(select(outbox.c.seq).limit(MOST_COUNTED).subquery()).label("outbox_events"),
        count(quarantine, quarantine.c.resolved_at.is_(None), quarantine.c.enrollment.is_(None)).label(
            "quarantine_open"
        ),
        count(
            select(audit_findings.c.transaction_id)
            .join(transactions, OPEN_FINDING)
            .limit(MOST_COUNTED)
            .subquery()
        ).label("audit_differing_transactions"),
        select(func.extract("epoch", func.max(audit_runs.c.ended_at)))
        .scalar_subquery()
        .label("audit_last_success"),
    )
    return dict((await db.execute(query)).mappings().one())
