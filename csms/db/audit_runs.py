"""The runs of the nightly audit: which node's turn it is, when it ran last, and what it has found."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.db.audit_tables import audit_findings, audit_runs
from csms.db.driver import DriverConnection
from csms.db.rows import all_structs
from csms.db.tables import transactions

_KEPT = timedelta(days=365)
OPEN_FINDING = and_(
    transactions.c.id == audit_findings.c.transaction_id, transactions.c.revision == audit_findings.c.revision
)


class AuditRun(Struct, frozen=True, kw_only=True):
    """A run of the audit; `ended_at` None: it was interrupted, or runs."""

    id: int
    started_at: datetime
    ended_at: datetime | None


class AuditFinding(Struct, frozen=True, kw_only=True):
    """A transaction that differed at a revision, and in which fields."""

    transaction_id: int
    revision: int
    fields: tuple[str, ...]


async def take_turn(db: DriverConnection) -> bool:
    """Whether no other node audits now. The turn is over with `end_turn`, or with the database session."""
    taken: bool = await db.fetchval("SELECT pg_try_advisory_lock(hashtext('csms.audit'))")
    return taken


async def end_turn(db: DriverConnection) -> None:
    await db.execute("SELECT pg_advisory_unlock(hashtext('csms.audit'))")


async def last_runs(db: DriverConnection) -> tuple[AuditRun | None, AuditRun | None]:
    """The newest run, and the newest one that has ended."""
    query = "SELECT id, started_at, ended_at FROM audit_runs {} ORDER BY id DESC LIMIT 1"
    rows = [await db.fetchrow(query.format(which)) for which in ("", "WHERE ended_at IS NOT NULL")]
    newest, ended = (None if row is None else AuditRun(**row) for row in rows)
    return newest, ended


async def begin_run(db: DriverConnection, node: str, now: datetime) -> int:
    """Record that a run begins, in place of those that were interrupted."""
    async with db.transaction():
        await db.execute(
            "DELETE FROM audit_runs WHERE ended_at IS NULL OR started_at < $1::timestamptz", now - _KEPT
        )
        number: int = await db.fetchval(
            "INSERT INTO audit_runs (node, started_at) VALUES ($1, $2::timestamptz) RETURNING id", node, now
        )
    return number


async def end_run(
    db: DriverConnection, number: int, now: datetime, audited: int, findings: Sequence[AuditFinding]
) -> None:
    """Record what a run has found, in place of what was found before."""
    async with db.transaction():
        await db.execute("DELETE FROM audit_findings")
        await db.executemany(
            "INSERT INTO audit_findings (transaction_id, revision, fields) VALUES ($1, $2, $3)",
            [(found.transaction_id, found.revision, list(found.fields)) for found in findings],
        )
        await db.execute(
            "UPDATE audit_runs SET ended_at = $2::timestamptz, audited = $3, differing = $4 WHERE id = $1",
            number,
            now,
            audited,
            len(findings),
        )


async def found_before(db: DriverConnection) -> list[int]:
    """The transactions of all findings."""
    return [row[0] for row in await db.fetch("SELECT transaction_id FROM audit_findings ORDER BY 1")]


async def open_findings(db: AsyncConnection, *, limit: int = 100) -> list[AuditFinding]:
    """The findings of transactions that were not revised since, newest first."""
    query = (
        select(audit_findings)
        .join(transactions, OPEN_FINDING)
        .order_by(audit_findings.c.transaction_id.desc())
        .limit(limit)
    )
    return await all_structs(db, AuditFinding, query)


async def last_ended_at(db: AsyncConnection) -> datetime | None:
    """When the last audit ended."""
    ended: datetime | None = await db.scalar(select(func.max(audit_runs.c.ended_at)))
    return ended
