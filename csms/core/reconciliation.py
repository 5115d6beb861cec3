"""Inferred ends: transactions whose stop never came are closed by what their chargers have reported since."""

from csms.core import reports
from csms.core.attribution import find_transaction
from csms.core.closing import close_inferred
from csms.core.records import Transaction
from csms.core.work import Work


def reconcile(work: Work, r: reports.Reconcile) -> bool:
    """Close the transaction if the evidence for its end is unchanged. A real stop that comes later amends it.

    One that has ended by inference is ended anew if readings came since that show more energy.
    """
    transaction = find_transaction(work, r.charger_id, r.transaction_id)
    if transaction is not None and transaction.inferred:
        return _amend(work, transaction)
    charger = work.chargers.get(r.charger_id)
    if transaction is None or not transaction.open or charger is None:
        return False
    connector = work.connector(r.charger_id, transaction.connector_id)
    found = (connector.free_since, charger.booted_at, connector.reading_at)
    if found != (r.free_since, r.booted_at, r.reading_at):
        return False
    booted = r.booted_at is not None and r.booted_at > transaction.start_received_at
    if r.free_since is None and not booted:
        return False
    close_inferred(work, transaction, reason="Other" if r.free_since is not None else "Reboot")
    return True


def _amend(work: Work, ended: Transaction) -> bool:
    shown = ended.register is not None and ended.register.energy_wh > (ended.energy_wh or 0)
    if shown:
        close_inferred(work, ended, reason=ended.stop_reason or "Other")
    return shown
