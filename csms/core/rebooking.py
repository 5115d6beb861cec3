"""What the audit books of a transaction that differs, or why it books nothing of it. docs/audit.md has the rules.

A correction by the audit is the transaction's next revision, by `audit`. It has the figures that the evidence shows or, of a
bill that an operator made, those of the revision that records the decision. Where what is stored contradicts itself, and
nothing shows which of it is true, an operator decides.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from csms.core import accounts, audit
from csms.core.attribution import find_transaction
from csms.core.audit import AuditSources, Compared, Difference
from csms.core.closing import AUDIT, CHARGER, HELD, VOID, book
from csms.core.corrections import as_it_stands
from csms.core.currencies import minor_digits
from csms.core.evidence import CLOCK_CHANGED
from csms.core.operator_reports import Rebook, Revised
from csms.core.pricing import Bill, Cost, session_cost
from csms.core.records import Transaction
from csms.core.replay import DECIDED, TRANSACTION_ID_INFERRED, clocks_disagree
from csms.core.work import Work
from csms.errors import WrongState

NO_RECORD: Final = "an operator made the bill, and no revision records it: correct, release or void it"
OTHER_PRICE: Final = "the cost that the operator's revision records is not that of its tariff: correct, release or void the bill"
FIGURES: Final = (
    "its readings are no longer stored, and its figures contradict each other: correct it by hand"
)
CONTRADICTED: Final = (
    "its events contradict it, and nothing that is stored shows which of them is true: correct it by hand"
)
UNSTABLE: Final = "its evidence does not lead to one bill: correct it by hand"
REPAIRED: Final = "an operator has booked its stop out of quarantine: correct it by hand if it is wrong"
SCALED: Final = "csms reads the registers of its charger as kWh, and may have learned that during the session: correct it by hand"
NO_STATUSES: Final = "its price depends on statuses that are no longer stored: correct it by hand"
NO_BOOTS: Final = "its charger's clock was wrong, and when the charger lost its power is no longer stored: correct it by hand"
STILL_HELD: Final = "the bill is held: release, correct or void it"
OTHER_TARIFF: Final = (
    "its tariff is not the one that was published, or that is stored as this version: correct it by hand"
)
UNPROVEN: Final = (
    "its StartTransaction or StopTransaction is not stored, and nothing else shows that the recomputed bill is true:"
    " correct it by hand"
)
OLDER: Final = "an older release has booked it, and its messages are no longer stored: correct it by hand"
NO_RENTAL: Final = (
    "no rental of its account is for this transaction: correct the balance of the account by hand"
)
UNSOUND: Final = (
    "the entries of its account do not add up to the balance: look for the entry that was changed or deleted"
)

_TARIFF: Final = frozenset(
    f"event session_cost.{key}"
    for key in (
        "tariffId",
        "tariffVersion",
        "currency",
        "pricingModel",
        "energyRate",
        "timeRate",
        "sessionFee",
    )
)
# What follows from the reported start and end alone, and from when the energy was drawn in between.
_REPORTED: Final = ("meter_start_wh", "meter_stop_wh", "inferred", "duration_s", "bill")
_SHOWN: Final = DECIDED | {TRANSACTION_ID_INFERRED}  # anomalies that the evidence shows, or shows not to be
_LONGEST_NOTE = 500


class RentalDebits(Struct, frozen=True, kw_only=True):
    """What the rental of a transaction says. `sound`: all entries of its account add up to the account's balance."""

    account_id: str
    debited_minor: int
    sound: bool


def rebook(work: Work, r: Rebook) -> Revised:
    """Book a correction of the audit, if the transaction is still what was audited."""
    before = find_transaction(work, r.charger_id, r.transaction_id)
    if before != r.before:
        raise WrongState(f"Transaction {r.transaction_id} has changed since it was audited: audit it again.")
    if r.debited_minor is not None:
        accounts.recount(work, r.before, r.debited_minor)
    cost = as_it_stands(work, r.after) if r.cost is None else r.cost
    last = replace(r.before, revision=r.revision - 1)
    after = book(work, last, r.after, cost, author=AUDIT, note=r.note)
    return Revised(before=r.before, after=after)


def proposed(
    ended: Transaction,
    found: Compared,
    sources: AuditSources,
    shown: tuple[Transaction, Cost] | None,
    rental: RentalDebits | None,
) -> Rebook | str:
    """Return the correction of a transaction that differs, or the sentence why there is none.

    `shown`: what its evidence leads to, with the price; None: it leads nowhere, or is not what decides.
    """
    cost: Cost | None = None
    if found.basis == "operator":
        decided = _as_recorded(ended, sources)
    elif found.basis == "figures":
        decided = FIGURES if found.figures or found.recorded else ended
    elif shown is None:
        decided = UNSTABLE
    else:
        cost = shown[1]
        decided = _obstacle(ended, shown[0], sources) or shown[0]
    if isinstance(decided, str):
        return decided
    if (found.basis != "evidence" or not _proven(ended, sources)) and audit.contradictions(
        decided, sources.carriers
    ):
        return CONTRADICTED
    return _unpayable(decided, sources, rental) or Rebook(
        charger_id=ended.charger_id,
        before=ended,
        after=decided,
        revision=audit.newest_revision(ended, sources) + 1,
        note=_note((*found.figures, *found.recorded, *found.published, *found.settled)),
        cost=cost,
        debited_minor=None if rental is None else -(sources.entries_minor or 0),
    )


def _as_recorded(ended: Transaction, sources: AuditSources) -> Transaction | str:
    """Return an operator's bill as its newest revision records it."""
    if sources.revision is None:
        return NO_RECORD
    recorded = replace(ended, **asdict(sources.revision.state))
    minor = recorded.cost_minor or 0
    recorded = replace(recorded, cost=Decimal(minor).scaleb(-minor_digits(ended.tariff.currency)))
    if recorded.billing == VOID:
        return replace(recorded, bill=Bill())
    if not ended.tariff.needs_timeline:
        recorded = replace(recorded, bill=None)
    return OTHER_PRICE if _price(recorded) != minor else recorded


def _price(recorded: Transaction) -> int | None:
    """Return the price of a bill's figures, or of its components where it depends on when the energy was drawn."""
    if recorded.tariff.needs_timeline:
        return None if recorded.bill is None else sum(line.amount_minor for line in recorded.bill.lines)
    return session_cost(
        recorded.tariff, recorded.energy_wh or 0, recorded.duration_s or Decimal(0)
    ).amount_minor


def _obstacle(ended: Transaction, shown: Transaction, sources: AuditSources) -> str | None:
    """Return why a bill is not corrected to what its evidence shows, if it is not."""
    revision, terms = sources.revision, sources.terms
    if ended.billing == HELD and shown.billing != HELD:
        return STILL_HELD
    if revision is not None and revision.author == CHARGER and revision.note is not None:
        return REPAIRED
    if sources.scaled and ended.register is None and shown.energy_wh != ended.energy_wh:
        return SCALED
    if not sources.statuses_kept and ended.tariff.charges("idle"):
        return NO_STATUSES
    if not sources.boots_known and clocks_disagree(shown) and shown.duration_s != ended.duration_s:
        return NO_BOOTS
    if terms is not None and terms.with_time_zone(ended.tariff.time_zone or "UTC") != ended.tariff:
        return OTHER_TARIFF
    contradictions = audit.contradictions(shown, sources.carriers)
    if any(d.field in _TARIFF for d in contradictions):
        return OTHER_TARIFF
    told = [d.stored for d in contradictions if d.field.endswith(".anomalies")]
    if revision is not None:
        told.append(revision.state.anomalies)
    if any((set(words or ()) ^ set(shown.anomalies)) - _SHOWN for words in told):
        return CONTRADICTED
    return None if _proven(ended, sources) else _unproven(ended, shown, sources)


def _unproven(ended: Transaction, shown: Transaction, sources: AuditSources) -> str | None:
    """Return why a bill is not corrected where what was reported is known from the bill alone.

    The register of the session is a second witness of the energy, and the events are one of all figures.
    """
    if ended.register is None or shown.register is None:
        return OLDER
    if replace(shown.register, readings=ended.register.readings) != ended.register:
        return UNPROVEN
    if sources.carriers:
        return None
    clocks = (CLOCK_CHANGED in ended.anomalies) != (CLOCK_CHANGED in shown.anomalies)
    changed = any(getattr(ended, name) != getattr(shown, name) for name in _REPORTED)
    return UNPROVEN if clocks or changed else None


def _proven(ended: Transaction, sources: AuditSources) -> bool:
    """Return whether both messages that begin and end a session are stored, and show the registers as they were read."""
    unscaled = ended.register is None or ended.register.scale == 1
    return sources.start is not None and sources.stop is not None and unscaled


def _unpayable(after: Transaction, sources: AuditSources, rental: RentalDebits | None) -> str | None:
    """Return why the account cannot be debited or refunded the difference, if there is one."""
    if after.account_id is None or after.billing == HELD:
        return None
    if rental is None or rental.account_id != after.account_id:
        return None if audit.paid_for(after, sources.entries_minor) else NO_RENTAL
    changed = rental.debited_minor != -(sources.entries_minor or 0)
    return UNSOUND if changed and not rental.sound else None


def _note(differences: Sequence[Difference]) -> str:
    told = "; ".join(f"{d.field} {_word(d.stored)}, recomputed {_word(d.recomputed)}" for d in differences)
    return told if len(told) <= _LONGEST_NOTE else f"{told[: _LONGEST_NOTE - 1]}…"


def _word(value: object) -> str:
    return "none" if value is None else msgspec.json.encode(value).decode().strip('"')
