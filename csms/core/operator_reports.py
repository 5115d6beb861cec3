"""What an operator or the audit decides about a transaction, as reports: the ledger records them like those of chargers."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from csms.core.pricing import Cost
from csms.core.records import Transaction
from csms.core.reports import Resendable


class Revised(Struct, frozen=True, kw_only=True):
    """A transaction before and after a revision."""

    before: Transaction
    after: Transaction


class Revise(Resendable[Revised], frozen=True, kw_only=True):
    """An operator stops an open transaction by hand, or corrects, releases or voids an ended one.

    Stop takes `meter_stop_wh` and `stopped_at`, correct all figures, of which `energy_wh` precedes the registers. A
    figure of None stays as it is. `expected_revision` is the one that the operator saw. Recording it raises NotBookable if
    the figures are impossible, and WrongState if the transaction's state does not allow it or its revision is another.
    `message_id` is the request's: a batch is written again after a commit of which the answer was lost.
    """

    transaction_id: int
    kind: Literal["stop", "correct", "release", "void"]
    author: str
    note: str
    expected_revision: int | None = None
    meter_start_wh: int | None = None
    meter_stop_wh: int | None = None
    energy_wh: int | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None


class Rebook(Resendable[Revised], frozen=True, kw_only=True):
    """The audit corrects an ended transaction.

    `before`: as it was audited; recording raises WrongState if it is not that any more. `after` becomes `revision`, at
    `cost`; None: at the cost that it has. `debited_minor`: what the account's entries for it add up to; None: they do not
    matter. `message_id` as in `Revise`.
    """

    before: Transaction
    after: Transaction
    revision: int
    note: str
    cost: Cost | None = None
    debited_minor: int | None = None

    @property
    def transaction_id(self) -> int:
        return self.before.id
