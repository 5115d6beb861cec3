"""Accounts as operators and their owners see and change them: balances, entries, payments, sign-in.

A balance is changed under its account's row lock, here and in the ledger (csms/db/account_rows.py).
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.accounts import TOP_UP
from csms.core.currencies import minor_digits
from csms.core.pricing import Cost
from csms.core.records import Account, AccountEntry, Rental, Transaction
from csms.db.account_tables import account_entries, account_tokens, accounts, payments, rentals
from csms.db.admin import Conflict, Missing
from csms.db.charger_views import ChargerView, get_charger
from csms.db.rows import all_rows, all_structs, first_row, first_struct, from_row
from csms.db.transaction_views import last_ended

LINK, SESSION = "link", "session"
PENDING, PAID, FAILED = "pending", "paid", "failed"
_HELD = (
    select(func.coalesce(func.sum(func.greatest(rentals.c.hold_minor - rentals.c.debited_minor, 0)), 0))
    .where(
        rentals.c.account_id == accounts.c.id,
        rentals.c.ended_at.is_(None),
        (rentals.c.expires_at.is_(None)) | (rentals.c.expires_at > func.now()),
    )
    .scalar_subquery()
)
_VIEWED = (accounts, _HELD.label("held_minor"))


class AccountView(Struct, frozen=True, kw_only=True):
    """An account, and how much of its balance is held for rentals."""

    account: Account
    held_minor: int
    created_at: datetime

    @property
    def available_minor(self) -> int:
        return self.account.balance_minor - self.held_minor

    @property
    def money(self) -> Cost:
        """The balance in the currency's major unit."""
        account = self.account
        amount = Decimal(account.balance_minor).scaleb(-minor_digits(account.currency))
        return Cost(amount=amount, amount_minor=account.balance_minor, currency=account.currency)


def _view(row: Mapping[Any, Any]) -> AccountView:
    return AccountView(
        account=from_row(Account, row),
        held_minor=int(row["held_minor"]),
        created_at=row["created_at"],
    )


# --- accounts --------------------------------------------------------------------------------------------


async def put(db: AsyncConnection, account_id: str, currency: str, *, blocked: bool | None = None) -> bool:
    """Create an account, or block or unblock an existing one. True: it is new.

    Raises Conflict for another currency than the account has.
    """
    made = await db.scalar(
        upsert(accounts)
        .values(id=account_id, currency=currency, blocked=bool(blocked))
        .on_conflict_do_nothing()
        .returning(accounts.c.id)
    )
    if made is not None:
        return True
    known = await db.scalar(select(accounts.c.currency).where(accounts.c.id == account_id))
    if known != currency:
        raise Conflict(f"Account {account_id!r} is kept in {known}.")
    if blocked is not None:
        await db.execute(update(accounts).where(accounts.c.id == account_id).values(blocked=blocked))
    return False


async def get(db: AsyncConnection, account_id: str) -> AccountView | None:
    row = await first_row(db, select(*_VIEWED).where(accounts.c.id == account_id))
    return None if row is None else _view(row)


async def list_accounts(
    db: AsyncConnection, *, after_id: str = "", beginning: str = "", limit: int = 100
) -> list[AccountView]:
    query = select(*_VIEWED).where(accounts.c.id > after_id).order_by(accounts.c.id).limit(limit)
    if beginning:
        query = query.where(accounts.c.id.startswith(beginning, autoescape=True))
    return [_view(row) for row in await all_rows(db, query)]


# --- entries ---------------------------------------------------------------------------------------------


async def add_entry(
    db: AsyncConnection,
    account_id: str,
    *,
    key: str,
    kind: str,
    amount_minor: int,
    note: str | None,
    now: datetime,
) -> AccountEntry:
    """Add an entry that changes the balance, once per key: a repeated call returns the entry that is there.

    Raises Missing, and Conflict when the key belongs to another entry.
    """
    locked = select(accounts.c.balance_minor).where(accounts.c.id == account_id)
    balance_minor = await db.scalar(locked.with_for_update(key_share=True))
    if balance_minor is None:
        raise Missing(f"There is no account {account_id!r}.")
    entry = await first_struct(db, AccountEntry, select(account_entries).where(account_entries.c.key == key))
    if entry is not None:
        if (entry.account_id, entry.kind, entry.amount_minor) != (account_id, kind, amount_minor):
            raise Conflict(f"The key {key!r} stands for another entry already.")
        return entry
    balance_minor += amount_minor
    entry = AccountEntry(
        account_id=account_id,
        key=key,
        kind=kind,
        amount_minor=amount_minor,
        balance_minor=balance_minor,
        transaction_id=None,
        note=note,
        recorded_at=now,
    )
    await db.execute(insert(account_entries).values(asdict(entry)))
    await db.execute(update(accounts).where(accounts.c.id == account_id).values(balance_minor=balance_minor))
    return entry


async def list_entries(
    db: AsyncConnection, account_id: str, *, before_id: int | None = None, limit: int = 100
) -> list[tuple[int, AccountEntry]]:
    """Entries with their numbers, newest first."""
    query = select(account_entries).where(account_entries.c.account_id == account_id)
    if before_id is not None:
        query = query.where(account_entries.c.id < before_id)
    rows = await all_rows(db, query.order_by(account_entries.c.id.desc()).limit(limit))
    return [(row["id"], from_row(AccountEntry, row)) for row in rows]


# --- payments --------------------------------------------------------------------------------------------


async def begin_payment(
    db: AsyncConnection, payment_id: str, account_id: str, provider: str, amount_minor: int
) -> None:
    await db.execute(
        insert(payments).values(
            id=payment_id,
            account_id=account_id,
            provider=provider,
            amount_minor=amount_minor,
            state=PENDING,
        )
    )


async def settle_payment(
    db: AsyncConnection, payment_id: str, provider: str, *, paid: bool, now: datetime
) -> bool:
    """Store the provider's report on a payment and add its entry, once. False: there is no such payment."""
    query = select(payments).where(payments.c.id == payment_id, payments.c.provider == provider)
    row = await first_row(db, query.with_for_update())
    if row is None:
        return False
    if row["state"] != PENDING:
        return True
    await db.execute(
        update(payments)
        .where(payments.c.id == payment_id)
        .values(state=PAID if paid else FAILED, settled_at=now)
    )
    if paid:
        await add_entry(
            db,
            row["account_id"],
            key=f"payment:{payment_id}",
            kind=TOP_UP,
            amount_minor=row["amount_minor"],
            note=provider,
            now=now,
        )
    return True


# --- sign-in ---------------------------------------------------------------------------------------------


async def add_token(
    db: AsyncConnection, account_id: str, kind: str, digest: bytes, expires_at: datetime
) -> None:
    """Raises Missing."""
    if await db.scalar(select(accounts.c.id).where(accounts.c.id == account_id)) is None:
        raise Missing(f"There is no account {account_id!r}.")
    await db.execute(
        insert(account_tokens).values(digest=digest, account_id=account_id, kind=kind, expires_at=expires_at)
    )


async def use_link(db: AsyncConnection, digest: bytes, now: datetime) -> str | None:
    """The account of a sign-in link that is valid, which this call uses up; None for any other."""
    account_id: str | None = await db.scalar(
        update(account_tokens)
        .where(
            account_tokens.c.digest == digest,
            account_tokens.c.kind == LINK,
            account_tokens.c.used_at.is_(None),
            account_tokens.c.expires_at > now,
        )
        .values(used_at=now)
        .returning(account_tokens.c.account_id)
    )
    return account_id


async def signed_in_account(db: AsyncConnection, digest: bytes, now: datetime) -> AccountView | None:
    """The account of a valid session; None for any other."""
    query = select(*_VIEWED).join(account_tokens, account_tokens.c.account_id == accounts.c.id)
    row = await first_row(
        db,
        query.where(
            account_tokens.c.digest == digest,
            account_tokens.c.kind == SESSION,
            account_tokens.c.expires_at > now,
        ),
    )
    return None if row is None else _view(row)


async def forget_token(db: AsyncConnection, digest: bytes) -> None:
    await db.execute(delete(account_tokens).where(account_tokens.c.digest == digest))


async def forget_tokens(db: AsyncConnection, before: datetime) -> None:
    """Delete the links and sessions that expired before `before`."""
    await db.execute(delete(account_tokens).where(account_tokens.c.expires_at < before))


# --- rentals ---------------------------------------------------------------------------------------------


class RentalView(Struct, frozen=True, kw_only=True):
    """A charger as its rental page shows it to one user. `last`: that user's last ended transaction there.

    `debited_minor`: what the running transaction has taken from its payer's balance so far.
    """

    charger: ChargerView
    running: Transaction | None
    last: Transaction | None
    debited_minor: int = 0


async def rental_view(db: AsyncConnection, charger_id: str, account_id: str) -> RentalView | None:
    """None for an unknown charger."""
    charger = await get_charger(db, charger_id)
    if charger is None:
        return None
    running = charger.sessions[0].transaction if charger.sessions else None
    debited_minor = None
    if running is not None:
        debited_minor = await db.scalar(
            select(rentals.c.debited_minor).where(rentals.c.transaction_id == running.id)
        )
    return RentalView(
        charger=charger,
        running=running,
        last=await last_ended(db, charger_id, account_id),
        debited_minor=debited_minor or 0,
    )


async def list_rentals(db: AsyncConnection, account_id: str, *, limit: int = 100) -> list[Rental]:
    """Newest first."""
    query = select(rentals).where(rentals.c.account_id == account_id)
    return await all_structs(db, Rental, query.order_by(rentals.c.id.desc()).limit(limit))


async def open_rentals(db: AsyncConnection, *, limit: int = 100) -> list[Rental]:
    """Running and held rentals of all accounts, newest first."""
    expired = (rentals.c.expires_at.is_not(None)) & (rentals.c.expires_at <= func.now())
    query = select(rentals).where(rentals.c.ended_at.is_(None), ~expired)
    return await all_structs(db, Rental, query.order_by(rentals.c.id.desc()).limit(limit))
