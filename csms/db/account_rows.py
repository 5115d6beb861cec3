"""The ledger's SQL for accounts: locked in order after chargers and tags, and only where a balance may change."""

from collections.abc import Mapping
from typing import Any, Final

from csms.core import reports
from csms.core.operator_reports import Rebook, Revise
from csms.core.records import Account, AccountEntry, Rental
from csms.core.work import Work
from csms.db.driver import DriverConnection
from csms.db.record_sql import ACCOUNT_SQL, ENTRY_SQL, RENTAL_SQL, ReportBatch

_ACCOUNTS_LOCKED: Final = f"{ACCOUNT_SQL.select} WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE"
_RENTALS: Final = (
    f"{RENTAL_SQL.select} WHERE ended_at IS NULL AND account_id = ANY($1::text[])"
    f" UNION {RENTAL_SQL.select} WHERE ended_at IS NULL AND charger_id = ANY($2::text[])"
    f" UNION {RENTAL_SQL.select} WHERE transaction_id = ANY($3::int4[])"
)
_BALANCE: Final = "UPDATE accounts SET balance_minor = $2 WHERE id = $1"
_CHANGES_BALANCES: Final = (
    reports.Start,
    reports.Meter,
    reports.Stop,
    reports.Reconcile,
    reports.Rent,
    reports.Unrented,
    Revise,
    Rebook,
)


async def load(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    """Lock the accounts of the batch and load their rentals. Comes after the transactions are loaded."""
    charger_ids = {report.charger_id for report in batch if isinstance(report, _CHANGES_BALANCES)}
    named = {report.account_id for report in batch if isinstance(report, reports.Rent | reports.Unrented)}
    named |= {r.account_id for r in batch if isinstance(r, reports.Start) and r.account_id is not None}
    paid = [t for t in work.transactions.values() if t.account_id is not None and t.charger_id in charger_ids]
    named |= {t.account_id for t in paid if t.account_id is not None}
    if not named:
        return
    for row in await db.fetch(_ACCOUNTS_LOCKED, sorted(named)):
        work.load(Account(**row))
    rented = [report.charger_id for report in batch if isinstance(report, reports.Rent)]
    for row in await db.fetch(_RENTALS, sorted(named), rented, [t.id for t in paid]):
        work.load(Rental(**row))


async def save(db: DriverConnection, work: Work, changed: Mapping[type[Any], list[Any]]) -> None:
    """Write the work's balances, rentals and entries. `changed`: its changed records by type."""
    if accounts := changed.get(Account):
        await db.executemany(_BALANCE, [(a.id, a.balance_minor) for a in accounts])
    if rentals := changed.get(Rental):
        # Ends before starts: an account has at most one open rental at any moment.
        rentals.sort(key=lambda rental: (rental.open, rental.id))
        await db.executemany(RENTAL_SQL.upsert_row, map(RENTAL_SQL.values, rentals))
    if entries := work.added.get(AccountEntry):
        await ENTRY_SQL.copy(db, entries)
