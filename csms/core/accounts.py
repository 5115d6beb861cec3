"""Accounts: whether an account may rent, the hold on its balance, and its debits.

Every change of a balance is one account entry. A transaction's total is priced and rounded once, as on its bill; the
debits made while it runs and at its end add up to that total. Amounts are in the currency's minor unit.
"""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from csms.core import reports
from csms.core.availability import INOPERATIVE
from csms.core.currencies import minor_digits
from csms.core.device_state import Availability
from csms.core.pricing import duration_s, session_cost
from csms.core.records import Account, AccountEntry, Rental, Transaction
from csms.core.tariffs import Tariff
from csms.core.work import Work

HELD, RUNNING, ENDED, RELEASED = "held", "running", "ended", "released"
TOP_UP, DEBIT, REFUND = "top_up", "debit", "refund"
_MIN_S, _MIN_WH = Decimal(15 * 60), 100
_ACCEPTED: Final = "Accepted"


def required_minor(tariff: Tariff, min_balance: Decimal | None) -> int:
    """Return what must be available before a rental begins: `min_balance` (major unit), or the price of 15 min and 100 Wh."""
    if min_balance is not None:
        return int(min_balance.scaleb(minor_digits(tariff.currency)))
    return session_cost(tariff, _MIN_WH, _MIN_S).amount_minor


def available_minor(account: Account, rentals: Sequence[Rental]) -> int:
    """Return the balance less what open rentals hold. What a rental has been debited already reduces its hold."""
    held = sum(
        max(r.hold_minor - r.debited_minor, 0) for r in rentals if r.open and r.account_id == account.id
    )
    return account.balance_minor - held


def add_to_balance(account: Account, amount_minor: int) -> Account:
    """Return the account with its balance changed by `amount_minor`, which may be negative."""
    return replace(account, balance_minor=account.balance_minor + amount_minor)


# --- before the start ------------------------------------------------------------------------------------


def rent(work: Work, r: reports.Rent) -> reports.Rented:
    """Hold money for a rental if connector, account and balance allow it. A repeated request finds the same hold."""
    _release_expired(work)
    refusal = _occupied(work, r) or _inoperative(work, r)
    account = work.accounts.get(r.account_id)
    if account is None or refusal is not None:
        return reports.Rented(status=refusal or ("NoAccount" if r.account_required else _ACCEPTED))
    tariff = work.tariff_for(r.charger_id, r.account_id)
    own = [rental for rental in work.rentals.values() if rental.open and rental.account_id == account.id]
    rental = next((rental for rental in own if rental.charger_id == r.charger_id), None)
    needed = required_minor(tariff, r.terms.min_balance)
    others = [other for other in own if other is not rental]
    available = available_minor(account, others)
    status = _ACCEPTED
    if account.blocked:
        status = "Blocked"
    elif account.currency != tariff.currency:
        status = "OtherCurrency"
    elif others:
        status = "RentsElsewhere"
    elif available < needed:
        status = "NoMoney"
    if status == _ACCEPTED:
        expires_at = work.now + timedelta(seconds=r.holds_for_s)
        if rental is None:
            rental = _new_rental(
                work, account, r.charger_id, r.connector_id, r.terms, hold_minor=max(needed, 0)
            )
        work.put(replace(rental, expires_at=expires_at if rental.state == HELD else None))
    return reports.Rented(
        status=status, required_minor=needed, available_minor=available, currency=account.currency
    )


def unrented(work: Work, r: reports.Unrented) -> None:
    """Release the hold of a rental that did not begin."""
    for rental in _held_rentals(work, r.account_id, r.charger_id):
        work.put(replace(rental, state=RELEASED, ended_at=work.now))


def _occupied(work: Work, r: reports.Rent) -> str | None:
    running = work.open_transaction(r.charger_id, r.connector_id)
    if running is not None and running.id_tag != r.account_id:
        return "Occupied"
    connector = (r.charger_id, r.connector_id)
    taken = any(
        rental.open
        and (rental.charger_id, rental.connector_id) == connector
        and rental.account_id != r.account_id
        for rental in work.rentals.values()
    )
    return "Occupied" if taken else None


def _inoperative(work: Work, r: reports.Rent) -> str | None:
    inoperative = any(
        row.desired == INOPERATIVE and row.connector_id in {0, r.connector_id}
        for row in work.device_rows(Availability, r.charger_id)
    )
    return "Inoperative" if inoperative else None


def _release_expired(work: Work) -> None:
    for rental in list(work.rentals.values()):
        if rental.state == HELD and rental.expires_at is not None and rental.expires_at <= work.now:
            work.put(replace(rental, state=RELEASED, ended_at=work.now))


# --- from start to end -----------------------------------------------------------------------------------


def paying_account(work: Work, r: reports.Start) -> str | None:
    """Return the id of the account that pays for this start. None: it is unknown or in another currency than the tariff."""
    account = work.accounts.get(r.account_id) if r.account_id is not None else None
    if account is None or account.currency != work.tariff_for(r.charger_id, r.id_tag).currency:
        return None
    return account.id


def authorization(work: Work, r: reports.Start) -> reports.Authorization | None:
    """Authorize a start by its account instead of its idTag. None: the start names no known account."""
    account = work.accounts.get(r.account_id) if r.account_id is not None else None
    if account is None:
        return None
    return reports.Authorization(status="Blocked" if account.blocked else _ACCEPTED)


def begin_rental(work: Work, r: reports.Start, transaction: Transaction, *, past: bool = False) -> None:
    """Start the account's held rental, or a new one where the charger was started without `Rent`, or in the `past`."""
    if transaction.account_id is None:
        return
    account = work.accounts[transaction.account_id]
    rental = None if past else next(iter(_held_rentals(work, account.id, r.charger_id)), None)
    if rental is None:
        terms = r.terms or reports.RentalTerms()
        rental = _new_rental(work, account, r.charger_id, r.connector_id, terms, origin="direct")
    work.put(replace(rental, state=RUNNING, transaction_id=transaction.id, expires_at=None))


def debit_so_far(
    work: Work, transaction: Transaction, readings: Sequence[reports.Reading]
) -> reports.BalanceLeft | None:
    """Debit the cost up to the newest reading if the rental is `dynamic`, and return the balance that this leaves."""
    rental = _rental_of(work, transaction)
    read_at = max((reading.at or work.now for reading in readings), default=work.now)
    connector = work.connector(transaction.charger_id, transaction.connector_id)
    register = connector.register
    if rental is None or not transaction.open or register is None:
        return None
    if connector.reading_transaction_id != transaction.id or not register.readings:
        return None
    seconds = duration_s(transaction.started_at, read_at)
    so_far = session_cost(transaction.tariff, register.energy_wh, seconds)
    if rental.dynamic and so_far.amount_minor > rental.debited_minor:
        rental = _debit(work, rental, so_far.amount_minor - rental.debited_minor)
    owed_minor = so_far.amount_minor - rental.debited_minor
    account = work.accounts[rental.account_id]
    return reports.BalanceLeft(
        balance_minor=account.balance_minor - max(owed_minor, 0), currency=account.currency
    )


def settle(work: Work, closed: Transaction, *, charge: bool = True) -> None:
    """Debit the rest at the end of a transaction, or the difference after a correction, and end the rental's hold.

    A session without energy is free up to `free_s` seconds: what it was debited is refunded. `charge` False: its bill is
    held, so the rental ends as it is, and the account may rent again.
    """
    rental = _rental_of(work, closed)
    if rental is None:
        return
    if not charge:
        work.put(replace(rental, state=ENDED, ended_at=rental.ended_at or work.now))
        return
    total = closed.cost_minor or 0
    seconds = closed.duration_s or Decimal(0)
    free = closed.energy_wh == 0 and seconds <= rental.free_s
    if total != rental.debited_minor and not (free and rental.ended_at is not None):
        note = f"transaction {closed.id}, revision {closed.revision}" if closed.revision > 1 else None
        rental = _debit(work, rental, total - rental.debited_minor, note=note)
    if free and rental.debited_minor:
        rental = _debit(work, rental, -rental.debited_minor, note="no energy was given")
    work.put(replace(rental, state=ENDED, ended_at=rental.ended_at or work.now))


def recount(work: Work, transaction: Transaction, debited_minor: int) -> None:
    """Have a rental say what its account's entries add up to, where they were changed outside of csms."""
    rental = _rental_of(work, transaction)
    if rental is not None and rental.debited_minor != debited_minor:
        work.put(replace(rental, debited_minor=debited_minor))


def _held_rentals(work: Work, account_id: str, charger_id: str) -> list[Rental]:
    return [
        rental
        for rental in work.rentals.values()
        if (rental.account_id, rental.charger_id, rental.state) == (account_id, charger_id, HELD)
    ]


def _rental_of(work: Work, transaction: Transaction) -> Rental | None:
    if transaction.account_id is None:
        return None
    return next((r for r in work.rentals.values() if r.transaction_id == transaction.id), None)


def _new_rental(
    work: Work,
    account: Account,
    charger_id: str,
    connector_id: int,
    terms: reports.RentalTerms,
    *,
    hold_minor: int = 0,
    origin: str = "csms",
) -> Rental:
    rental = Rental(
        id=next(work.numbers),
        account_id=account.id,
        charger_id=charger_id,
        connector_id=connector_id,
        origin=origin,
        state=HELD,
        hold_minor=hold_minor,
        dynamic=terms.dynamic,
        free_s=terms.free_s,
        held_at=work.now,
    )
    work.put(rental)
    return rental


def _debit(work: Work, rental: Rental, amount_minor: int, *, note: str | None = None) -> Rental:
    """Take an amount from the account (a negative one is refunded): change entry, balance and rental together."""
    account = add_to_balance(work.accounts[rental.account_id], -amount_minor)
    debited = replace(rental, debited_minor=rental.debited_minor + amount_minor, debits=rental.debits + 1)
    work.put(account)
    work.put(debited)
    work.add(
        AccountEntry(
            account_id=account.id,
            key=f"tx:{rental.transaction_id}:{debited.debits}",
            kind=DEBIT if amount_minor > 0 else REFUND,
            amount_minor=-amount_minor,
            balance_minor=account.balance_minor,
            transaction_id=rental.transaction_id,
            note=note,
            recorded_at=work.now,
        )
    )
    return debited
