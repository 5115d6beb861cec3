"""Accounts: who pays from a balance, and the entries that move it."""

from decimal import Decimal
from typing import Final, Literal

from csms.core.currencies import minor_digits
from csms.core.records import AccountEntry
from csms.db import accounts
from csms.service.context import ServiceContext
from csms.service.problems import Problem

EntryKind = Literal["top_up", "correction"]
# The limits of an entry. The REST interface declares them in its models, `enter` checks them for every caller.
MAX_AMOUNT: Final = 1_000_000_000
AMOUNT_DECIMALS: Final = 3
KEY_LENGTH: Final = 128
NOTE_LENGTH: Final = 500


def major(amount_minor: int, currency: str) -> Decimal:
    """An amount in the currency's major unit."""
    return Decimal(amount_minor).scaleb(-minor_digits(currency))


def minor(amount: Decimal, currency: str) -> int:
    """An amount in the currency's minor unit. Raises Problem 422 for a fraction of it."""
    scaled = amount.scaleb(minor_digits(currency))
    if scaled != scaled.to_integral_value():
        raise Problem(422, "invalid-request", f"{currency} has {minor_digits(currency)} decimals.")
    return int(scaled)


async def known(context: ServiceContext, account_id: str) -> accounts.AccountView:
    """Raises Problem 404."""
    async with context.engine.connect() as db:
        view = await accounts.get(db, usable(account_id))
    if view is None:
        raise Problem(404, "not-found", f"There is no account {account_id!r}.")
    return view


def usable(account_id: str) -> str:
    """An account's id that can be stored at all. Raises Problem 422."""
    if not account_id or not account_id.isprintable():
        raise Problem(422, "invalid-request", "An account's id is made of 1 to 128 printable characters.")
    return account_id


async def enter(
    context: ServiceContext,
    account_id: str,
    *,
    key: str,
    amount: Decimal,
    kind: EntryKind,
    note: str | None,
) -> tuple[AccountEntry, str]:
    """Move a balance; the same `key` again changes nothing more. Returns the entry and its currency.

    Raises Problem 404, Problem 422 for a value outside the limits, and Conflict when the key stands for another entry.
    """
    _check_limits(key=key, amount=amount, note=note)
    view = await known(context, account_id)
    currency = view.account.currency
    amount_minor = minor(amount, currency)
    if amount_minor == 0 or (kind == "top_up" and amount_minor < 0):
        raise Problem(422, "invalid-request", "A top-up is more than 0; a correction is not 0.")
    async with context.engine.begin() as db:
        made = await accounts.add_entry(
            db,
            account_id,
            key=f"operator:{account_id}:{key}",
            kind=kind,
            amount_minor=amount_minor,
            note=note,
            now=context.now(),
        )
    return made, currency


def _check_limits(*, key: str, amount: Decimal, note: str | None) -> None:
    if not amount.is_finite() or abs(amount) > MAX_AMOUNT or amount != round(amount, AMOUNT_DECIMALS):
        sentence = f"The amount must be a number from -{MAX_AMOUNT} to {MAX_AMOUNT} with at most {AMOUNT_DECIMALS} decimals."
    elif not 1 <= len(key) <= KEY_LENGTH:
        sentence = f"The key must have 1 to {KEY_LENGTH} characters; this one has {len(key)}."
    elif note is not None and len(note) > NOTE_LENGTH:
        sentence = f"The note may have at most {NOTE_LENGTH} characters; this one has {len(note)}."
    else:
        return
    raise Problem(422, "invalid-request", sentence)
