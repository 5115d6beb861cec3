"""The ledger's SQL for accounts: locked in order after chargers and tags, and only where money may move."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from csms.core import reports
from csms.core.records import Account, AccountEntry, Rental
from csms.core.work import Work
from csms.db.driver import DriverConnection

_ACCOUNT: Final = tuple(field.name for field in msgspec.structs.fields(Account))
_RENTAL: Final = tuple(field.name for field in msgspec.structs.fields(Rental))
_ENTRY: Final = tuple(field.name for field in msgspec.structs.fields(AccountEntry))
_LOCKED = (
    f"SELECT {', '.join(_ACCOUNT)} FROM accounts WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE"
)
_RENTALS = (
    f"SELECT {', '.join(_RENTAL)} FROM rentals WHERE ended_at IS NULL AND account_id = ANY($1::text[])"
    f" UNION SELECT {', '.join(_RENTAL)} FROM rentals WHERE ended_at IS NULL AND charger_id = ANY($2::text[])"
    f" UNION SELECT {', '.join(_RENTAL)} FROM rentals WHERE transaction_id = ANY($3::int4[])"
)
_MONEY = (
    reports.Start,
    reports.Meter,
    reports.Stop,
    reports.Reconcile,
    reports.Rent,
    reports.Unrented,
)
_UPDATE = "UPDATE accounts SET balance_minor = $2 WHERE id = $1"
_UPSERT = (
    f"INSERT INTO rentals ({', '.join(_RENTAL)}) VALUES ({', '.join(f'${i}' for i in range(1, len(_RENTAL) + 1))})"
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _RENTAL if c != 'id')}"
)


async def load(db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]]) -> None:
    """After the transactions. Most batches have nothing to do with accounts and ask nothing."""
    moving = {report.charger_id for report in batch if isinstance(report, _MONEY)}
    named = {report.account_id for report in batch if isinstance(report, reports.Rent | reports.Unrented)}
    named |= {r.account_id for r in batch if isinstance(r, reports.Start) and r.account_id is not None}
    paid = [t for t in work.transactions.values() if t.account_id is not None and t.charger_id in moving]
    named |= {t.account_id for t in paid if t.account_id is not None}
    if not named:
        return
    for row in await db.fetch(_LOCKED, sorted(named)):
        work.load(Account(**row))
    asked = [report.charger_id for report in batch if isinstance(report, reports.Rent)]
    for row in await db.fetch(_RENTALS, sorted(named), asked, [t.id for t in paid]):
        work.load(Rental(**row))


async def save(db: DriverConnection, work: Work) -> None:
    accounts = [record for record in work.changed.values() if isinstance(record, Account)]
    if accounts:
        await db.executemany(_UPDATE, [(a.id, a.balance_minor) for a in accounts])
    rentals = [record for record in work.changed.values() if isinstance(record, Rental)]
    if rentals:
        # Ends before beginnings: a user has one open rental at any moment.
        rentals.sort(key=lambda rental: (rental.open, rental.id))
        await db.executemany(_UPSERT, [msgspec.structs.astuple(rental) for rental in rentals])
    if entries := work.added.get(AccountEntry):
        await db.copy_records_to_table(
            "account_entries", records=[msgspec.structs.astuple(entry) for entry in entries], columns=_ENTRY
        )
