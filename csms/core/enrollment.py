"""Reports about chargers that are not accepted, and about their acceptance."""

from datetime import datetime

from csms.core import reports


class Deferred(reports.Report[reports.Kept], frozen=True, kw_only=True):
    """A transaction message of a charger that is not accepted (recording its report has raised NotAdmitted).

    It is kept and acknowledged, and booked with its time of receipt when an operator accepts the charger. `identity`:
    a hash of what makes two messages the same. `start_key` and `at` are those of a start. `transaction_id`: what a stop
    or readings name. `error`: why the message cannot be decoded.
    """

    message_id: str | None
    action: str
    payload: bytes
    identity: bytes
    start_key: str | None = None
    at: datetime | None = None
    transaction_id: int | None = None
    error: str | None = None


class Enrolled(reports.Report[None], frozen=True, kw_only=True):
    """An operator has accepted the charger. Recording any report of the charger books its deferred messages first;
    this one does nothing else."""
