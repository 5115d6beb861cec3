"""What an operator decides about a transaction: to stop it by hand, to correct it, to release or to void its bill.

Each decision is the transaction's next revision, with its author and note (csms/core/closing.py). Figures that cannot be
raise NotBookable; what does not fit the state of the transaction raises WrongState.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from csms.core import reports
from csms.core.attribution import find_transaction
from csms.core.clocks import LONGEST_SESSION, is_suspect
from csms.core.closing import BILLED, HELD, VOID, book, close, inferred_end, priced
from csms.core.events import timestamp
from csms.core.evidence import OPERATOR, SessionEnd
from csms.core.operator_reports import Revise, Revised
from csms.core.pricing import Bill, Cost, duration_s, round_to_minor
from csms.core.records import Transaction
from csms.core.session_register import limit_wh
from csms.core.work import Work
from csms.errors import NotBookable, WrongState


def revise(work: Work, r: Revise) -> Revised:
    """Decide what an operator asks for, and return the transaction before and after it."""
    before = find_transaction(work, r.charger_id, r.transaction_id)
    if before is None:
        raise NotBookable(f"{r.charger_id} has no transaction {r.transaction_id}.")
    if r.expected_revision not in {None, before.revision}:
        raise WrongState(
            f"Transaction {before.id} has changed in the meantime: its revision is {before.revision}, not"
            f" {r.expected_revision}. Nothing was done. Look at its figures again, then decide."
        )
    return Revised(before=before, after=_DECISIONS[r.kind](work, r, before))


def book_second_stop(work: Work, r: reports.Stop, repair: reports.Repair, ended: Transaction) -> None:
    """Correct an ended transaction to the stop that an operator has taken out of quarantine. Raises NotBookable.

    What another operator has decided about the transaction stays: the stop was there to be seen then, or came after it.
    """
    if ended.billing == VOID or ended.energy_source == OPERATOR:
        decided = "is void" if ended.billing == VOID else "was corrected"
        raise NotBookable(
            f"An operator has decided about transaction {ended.id}: it {decided}. Correct it again to the figures of this"
            " stop if they are right, and resolve this message with a note."
        )
    order = Revise(
        charger_id=r.charger_id,
        transaction_id=ended.id,
        kind="correct",
        author=repair.author,
        note=repair.note,
        meter_stop_wh=r.meter_wh,
        stopped_at=None if r.at == ended.stopped_at else r.at,
    )
    _correct(work, order, replace(ended, stop_reason=r.reason, stop_id_tag=r.id_tag or ended.stop_id_tag))


def _stop(work: Work, r: Revise, before: Transaction) -> Transaction:
    """End an open transaction as inferred: a real stop that comes later amends it."""
    if not before.open:
        raise WrongState(f"Transaction {before.id} has ended already: correct it instead.")
    _check_moments(work, r)
    if r.stopped_at is not None and r.stopped_at < before.accounting_at:
        raise NotBookable(
            f"stoppedAt is before the start of the transaction ({timestamp(before.accounting_at)})."
        )
    register_wh = r.meter_stop_wh
    end = SessionEnd(
        meter_stop_wh=register_wh,
        stopped_at=r.stopped_at or inferred_end(work, before),
        received_at=work.now,
        inferred=True,
    )
    _check_registers(r)
    closed = close(
        work, before, end, reason="Other", id_tag=None, author=r.author, note=r.note, source=OPERATOR
    )
    if register_wh is not None and closed.energy_source != OPERATOR:
        believed_wh = before.meter_start_wh if closed.register is None else closed.register.last.wh
        raise NotBookable(
            f"meterStopWh {register_wh} contradicts the readings of transaction {before.id}, whose register is known up"
            f" to {believed_wh} Wh. Leave it out to bill by the readings, or correct the transaction after the stop."
        )
    return closed


def _correct(work: Work, r: Revise, before: Transaction) -> Transaction:
    if before.open:
        raise WrongState(f"Transaction {before.id} is running: stop it first, then correct it.")
    figures = (r.meter_start_wh, r.meter_stop_wh, r.energy_wh)
    if all(given is None for given in (*figures, r.started_at, r.stopped_at)):
        names = "meterStartWh, meterStopWh, energyWh, startedAt and stoppedAt"
        raise NotBookable(f"Nothing is corrected: send at least one of {names}.")
    began_at, ended_at = _moments(work, r, before)
    corrected = replace(
        _with_energy(r, before),
        started_at=r.started_at or before.started_at,
        stopped_at=r.stopped_at or before.stopped_at,
        accounting_at=r.started_at or before.accounting_at,
        clock_suspect=before.clock_suspect and r.started_at is None,
        duration_s=duration_s(began_at, ended_at),
        energy_source=before.energy_source if all(given is None for given in figures) else OPERATOR,
        inferred=False,
        billing=BILLED,
        held_because=(),
    )
    _check_power(work, r, corrected)
    if before.billing == VOID:
        corrected, cost = _voided(corrected)
    else:
        corrected, cost = priced(work, corrected, began_at, ended_at)
    return book(work, before, corrected, cost, author=r.author, note=r.note)


def _release(work: Work, r: Revise, before: Transaction) -> Transaction:
    """Publish and settle the bill that is held, as it stands."""
    if before.open:
        raise WrongState(f"Transaction {before.id} is running and has no bill yet: stop it first.")
    if before.billing == VOID:
        raise WrongState(f"Transaction {before.id} is void, and a void is final: its bill stays zero.")
    if before.billing != HELD:
        raise WrongState(f"The bill of transaction {before.id} is not held: correct or void it instead.")
    released = replace(before, billing=BILLED, held_because=())
    return book(work, before, released, as_it_stands(work, before), author=r.author, note=r.note)


def as_it_stands(work: Work, ended: Transaction) -> Cost:
    """Return the cost of an ended transaction as it is stored."""
    _, cost = priced(work, ended, *_billed_moments(ended))
    if ended.bill is None and cost.amount_minor == ended.cost_minor:
        return cost
    amount = Decimal(0) if ended.cost is None else ended.cost
    return replace(cost, amount=amount, amount_minor=ended.cost_minor or 0, bill=ended.bill or Bill())


def _void(work: Work, r: Revise, before: Transaction) -> Transaction:
    """Bill nothing. The energy stays, and no stop that comes later bills it again."""
    if before.open:
        raise WrongState(f"Transaction {before.id} is running: stop it first, then void it.")
    if before.billing == VOID:
        raise WrongState(f"Transaction {before.id} is void already; there is nothing left to do.")
    voided, cost = _voided(replace(before, inferred=False, held_because=()))
    return book(work, before, voided, cost, author=r.author, note=r.note)


def _voided(transaction: Transaction) -> tuple[Transaction, Cost]:
    nothing = round_to_minor(Decimal(0), transaction.tariff.currency)
    return replace(
        transaction, billing=VOID, cost=nothing.amount, cost_minor=nothing.amount_minor, bill=Bill()
    ), nothing


# --- figures ----------------------------------------------------------------------------------------------------------


def _with_energy(r: Revise, before: Transaction) -> Transaction:
    _check_registers(r)
    start_wh = before.meter_start_wh if r.meter_start_wh is None else r.meter_start_wh
    stop_wh = before.meter_stop_wh if r.meter_stop_wh is None else r.meter_stop_wh
    if r.energy_wh is not None:
        return replace(before, meter_start_wh=start_wh, meter_stop_wh=stop_wh, energy_wh=r.energy_wh)
    if r.meter_start_wh is None and r.meter_stop_wh is None:
        return before
    since_wh, drawn_wh, register = start_wh, 0, before.register
    if r.meter_start_wh is None and before.energy_source != OPERATOR and register is not None:
        # What the charger reported as the start may have been a placeholder, and the register may have been reset since.
        start_wh = start_wh if register.start_wh is None else register.start_wh
        since_wh = min(register.segment_wh, register.last.wh)
        drawn_wh = register.energy_wh - (register.last.wh - since_wh)
    if stop_wh is None or stop_wh < since_wh:
        raise NotBookable(
            f"The register at the end ({stop_wh} Wh) is below that at the start ({since_wh} Wh):"
            " send meterStartWh and meterStopWh, or energyWh if the register was reset."
        )
    energy_wh = drawn_wh + stop_wh - since_wh
    return replace(before, meter_start_wh=start_wh, meter_stop_wh=stop_wh, energy_wh=energy_wh)


def _check_registers(r: Revise) -> None:
    named = {"meterStartWh": r.meter_start_wh, "meterStopWh": r.meter_stop_wh, "energyWh": r.energy_wh}
    for name, value_wh in named.items():
        if value_wh is not None and value_wh < 0:
            raise NotBookable(f"{name} is negative ({value_wh} Wh): send the figure in Wh, from 0 on.")


def _check_power(work: Work, r: Revise, corrected: Transaction) -> None:
    """Refuse more energy than the charger can give in that time. One that was deleted has the limit of the session."""
    charger, register = work.chargers.get(corrected.charger_id), corrected.register
    max_power_w = work.max_power_w(corrected.charger_id)
    if register is not None and (charger is None or charger.max_power_w is None):
        max_power_w = register.max_power_w
    lasted_s, received_at = float(corrected.duration_s or 0), corrected.stop_received_at
    if r.started_at is None and r.stopped_at is None and received_at is not None:
        lasted_s = max(lasted_s, (received_at - corrected.start_received_at).total_seconds())
    most_wh = limit_wh(max_power_w, lasted_s)
    if (corrected.energy_wh or 0) > most_wh:
        raise NotBookable(
            f"{corrected.energy_wh} Wh is more than {corrected.charger_id} can give in {lasted_s / 60:.0f} minutes at"
            f" {max_power_w} W ({most_wh} Wh). Check the figures, or raise maxPowerW of the charger."
        )


# --- moments ----------------------------------------------------------------------------------------------------------


def _moments(work: Work, r: Revise, before: Transaction) -> tuple[datetime, datetime]:
    """Return the begin and end to bill by."""
    _check_moments(work, r)
    began_at, ended_at = _billed_moments(before)
    if r.started_at is None and r.stopped_at is None:
        return began_at, ended_at
    began_at, ended_at = r.started_at or began_at, r.stopped_at or ended_at
    if began_at >= ended_at:
        raise NotBookable(
            f"The start ({timestamp(began_at)}) is not before the end ({timestamp(ended_at)}):"
            " send startedAt and stoppedAt."
        )
    if ended_at - began_at > LONGEST_SESSION:
        raise NotBookable(
            f"From {timestamp(began_at)} to {timestamp(ended_at)} is more than {LONGEST_SESSION.days} days, longer than"
            " a session lasts: send startedAt and stoppedAt."
        )
    return began_at, ended_at


def _check_moments(work: Work, r: Revise) -> None:
    for name, at in (("startedAt", r.started_at), ("stoppedAt", r.stopped_at)):
        if at is not None and at > work.now:
            raise NotBookable(f"{name} {timestamp(at)} is in the future: send a moment that has passed.")
        if at is not None and is_suspect(at, work.now):
            raise NotBookable(f"{name} {timestamp(at)} is before 2015: send the true moment.")


def _billed_moments(ended: Transaction) -> tuple[datetime, datetime]:
    """Return when a session began and ended for its price: by the charger's clock, unless csms's decided."""
    assert ended.stopped_at is not None
    lasted_s = ended.duration_s
    if lasted_s is None or duration_s(ended.started_at, ended.stopped_at) == lasted_s:
        return ended.started_at, ended.stopped_at
    received_at = ended.stop_received_at
    if received_at is not None and duration_s(ended.started_at, received_at) == lasted_s:
        return ended.started_at, received_at
    length = timedelta(microseconds=int(lasted_s * 1_000_000))
    return ended.start_received_at, ended.start_received_at + length


_DECISIONS: Final[dict[str, Callable[[Work, Revise, Transaction], Transaction]]] = {
    "stop": _stop,
    "correct": _correct,
    "release": _release,
    "void": _void,
}
