"""Accounts: who pays from a balance, what moved it, how its owner signs in to the rental page."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated

from fastapi import Path, Query, Response
from msgspec.structs import asdict
from pydantic import AfterValidator, Field

from csms.api import pages
from csms.api.models import Input, Model
from csms.api.security import Context, administrator, guarded_router, operator, viewer
from csms.core.records import AccountEntry
from csms.core.text import storable
from csms.db import accounts
from csms.service import accounts as service
from csms.service import cursors
from csms.service.access import digest_of, new_secret

router = guarded_router(prefix="/accounts", tags=["accounts"])
AccountId = Annotated[str, Path(max_length=128, description="The user's id, as the stations know it")]


def _currency(value: str) -> str:
    if not (len(value) == 3 and value.isascii() and value.isalpha() and value.isupper()):
        raise ValueError("an ISO 4217 code such as UAH")
    return value


Currency = Annotated[str, AfterValidator(_currency)]
Amount = Annotated[
    Decimal,
    Field(ge=-service.MAX_AMOUNT, le=service.MAX_AMOUNT, decimal_places=service.AMOUNT_DECIMALS),
]


class AccountIn(Input):
    currency: Currency
    blocked: bool | None = None


class AccountOut(Model):
    """Money in the currency's major unit. `available` is the balance without what is held for rentals."""

    id: str
    currency: str
    balance: Decimal
    held: Decimal
    available: Decimal
    blocked: bool
    created_at: datetime

    @classmethod
    def of(cls, view: accounts.AccountView) -> "AccountOut":
        account = view.account
        return cls(
            **asdict(account),
            balance=service.major(account.balance_minor, account.currency),
            held=service.major(view.held_minor, account.currency),
            available=service.major(view.available_minor, account.currency),
            created_at=view.created_at,
        )


class AccountPage(Model):
    items: list[AccountOut]
    next_cursor: str | None = None


class EntryIn(Input):
    """`key` makes it safe to repeat: the same again changes nothing more."""

    key: Annotated[str, Field(min_length=1, max_length=service.KEY_LENGTH)]
    amount: Amount
    kind: service.EntryKind = "top_up"
    note: Annotated[str | None, Field(max_length=service.NOTE_LENGTH)] = None


class EntryOut(Model):
    key: str
    kind: str
    amount: Decimal
    balance: Decimal = Field(description="After this entry")
    transaction_id: int | None
    note: str | None
    recorded_at: datetime

    @classmethod
    def of(cls, entry: AccountEntry, currency: str) -> "EntryOut":
        return cls(
            **asdict(entry),
            amount=service.major(entry.amount_minor, currency),
            balance=service.major(entry.balance_minor, currency),
        )


class EntryPage(Model):
    items: list[EntryOut]
    next_cursor: str | None = None


class LinkIn(Input):
    expires_in_s: Annotated[int, Field(ge=10, le=7 * 86_400)] = 600


class LinkOut(Model):
    """Good once, until it expires: for `{page}?token=…`, or to be typed in."""

    token: str
    path: str
    expires_at: datetime


@router.get("", dependencies=[viewer])
async def list_accounts(
    context: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: pages.Cursor = None
) -> AccountPage:
    after = cursors.decode(cursor, tuple[str])
    async with context.engine.connect() as db:
        found = await accounts.list_accounts(
            db, after_id=storable(after[0]) if after else "", limit=limit + 1
        )
    items, following = cursors.cut(found, limit, lambda view: (view.account.id,))
    return AccountPage(items=[AccountOut.of(view) for view in items], next_cursor=following)


@router.get("/{account_id:segment}", dependencies=[viewer])
async def get_account(context: Context, account_id: AccountId) -> AccountOut:
    return AccountOut.of(await service.known(context, account_id))


@router.put("/{account_id:segment}", dependencies=[operator], responses={201: {"model": AccountOut}})
async def put_account(
    context: Context, account_id: AccountId, account: AccountIn, response: Response
) -> AccountOut:
    """Make an account, or block a known one. Its currency cannot be changed (409)."""
    async with context.engine.begin() as db:
        new = await accounts.put(db, service.usable(account_id), account.currency, blocked=account.blocked)
    response.status_code = 201 if new else 200
    return AccountOut.of(await service.known(context, account_id))


@router.post("/{account_id:segment}/entries", dependencies=[administrator], status_code=201)
async def add_entry(context: Context, account_id: AccountId, entry: EntryIn) -> EntryOut:
    """Top up, or correct. 409: the key stands for another entry already."""
    made, currency = await service.enter(
        context, account_id, key=entry.key, amount=entry.amount, kind=entry.kind, note=entry.note
    )
    return EntryOut.of(made, currency)


@router.get("/{account_id:segment}/entries", dependencies=[viewer])
async def list_entries(
    context: Context,
    account_id: AccountId,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> EntryPage:
    """The newest first; nothing is ever taken away."""
    view = await service.known(context, account_id)
    before = cursors.decode(cursor, tuple[int])
    async with context.engine.connect() as db:
        found = await accounts.list_entries(
            db, account_id, before_id=before[0] if before else None, limit=limit + 1
        )
    items, following = cursors.cut(found, limit, lambda row: (row[0],))
    return EntryPage(
        items=[EntryOut.of(entry, view.account.currency) for _, entry in items], next_cursor=following
    )


@router.post("/{account_id:segment}/links", dependencies=[administrator], status_code=201)
async def add_link(context: Context, account_id: AccountId, link: LinkIn) -> LinkOut:
    """A token that signs this user in to the rental page once. Only a digest of it is kept."""
    await service.known(context, account_id)
    secret, expires_at = new_secret(), context.now() + timedelta(seconds=link.expires_in_s)
    async with context.engine.begin() as db:
        await accounts.add_token(db, account_id, accounts.LINK, digest_of(secret), expires_at)
    return LinkOut(token=secret, path=f"/r/sign-in?token={secret}", expires_at=expires_at)
