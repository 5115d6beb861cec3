"""The audit of an ended transaction: what differs between its stored bill and what its evidence shows.

A bill that the charger or csms made is compared with its replay (csms/core/replay.py); one that an operator made, with the
revision that records the decision. Where readings are no longer stored, the figures are compared with each other. Every
bill is compared with the events and the account entries that carry it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from csms.core import events
from csms.core.closing import CHARGER, CSMS, HELD, VOID
from csms.core.currencies import minor_digits
from csms.core.evidence import OPERATOR
from csms.core.pricing import Bill, Cost, duration_s, session_cost
from csms.core.records import BilledState, Event, StoredReading, Transaction, TransactionRevision
from csms.core.replay import SessionSources, replayed
from csms.core.tariffs import Tariff
from csms.core.work import Policy

CheckedBy = Literal["frames", "readings", "figures"]
Basis = Literal["operator", "evidence", "figures"]
CARRIED_BY: Final = ("completed", "updated", "session_cost", "cost_held")

_BY_START = ("connector_id", "id_tag", "started_at", "clock_suspect", "accounting_at", "meter_start_wh")
_BY_STOP = ("stopped_at", "stop_reason", "stop_id_tag", "inferred", "meter_stop_wh")
_BY_EVIDENCE = ("energy_wh", "energy_source", "duration_s", "anomalies", "billing", "held_because")
_BY_PRICE = ("cost_minor", "cost", "bill")
_RATES = frozenset({"energyRate", "timeRate"})  # of bands: averages, which only the timeline shows


class Difference(Struct, frozen=True, kw_only=True):
    """A stored value that is not what it should be. `why`: what shows the recomputed one."""

    field: str
    stored: Any
    recomputed: Any
    why: str


class AuditSources(SessionSources, frozen=True, kw_only=True):
    """What is stored about an ended transaction beside its row and its readings.

    `readings_kept`, `statuses_kept`: none of them is past its retention. `boots_known`: `booted_at` is complete. `scaled`: csms
    reads the charger's registers as kWh. `terms`: those of the tariff by its id and version. `revision`: the newest recorded
    one; `decided_by`: the author of the newest one that the audit has not booked. `carriers`: the events of its end and
    cost. `entries_minor`: what its account entries add up to; None: it has none.
    """

    readings_kept: bool = True
    statuses_kept: bool = True
    boots_known: bool = True
    scaled: bool = False
    terms: Tariff | None = None
    revision: TransactionRevision | None = None
    decided_by: str | None = None
    carriers: Sequence[Event] = ()
    entries_minor: int | None = None


class Compared(Struct, frozen=True, kw_only=True):
    """What differs in a transaction's own figures, and in what carries them: the revision, the events, the entries."""

    basis: Basis
    figures: Sequence[Difference]
    recorded: Sequence[Difference]
    published: Sequence[Difference]
    settled: Sequence[Difference]


class AuditedTransaction(Struct, frozen=True, kw_only=True):
    """The result of the audit of one transaction. `older`: an older release has booked it."""

    id: int
    charger_id: str
    revision: int
    accounting_at: datetime
    checked_by: CheckedBy
    older: bool
    differences: tuple[Difference, ...]


def audit_transaction(
    ended: Transaction, readings: Iterable[StoredReading], sources: AuditSources, policy: Policy
) -> AuditedTransaction:
    """Compare an ended transaction with its evidence. `readings` in the order of arrival, up to the end."""
    found = compared(ended, readings, sources, policy)
    checked_by: CheckedBy = "figures"
    if found.basis == "evidence":
        checked_by = "readings" if sources.start is None else "frames"
    return AuditedTransaction(
        id=ended.id,
        charger_id=ended.charger_id,
        revision=ended.revision,
        accounting_at=ended.accounting_at,
        checked_by=checked_by,
        older=ended.register is None,
        differences=(*found.figures, *found.recorded, *found.published, *found.settled),
    )


def compared(
    ended: Transaction, readings: Iterable[StoredReading], sources: AuditSources, policy: Policy
) -> Compared:
    """Compare an ended transaction with its evidence, kind by kind."""
    basis: Basis = "figures"
    if _by_operator(ended, sources):
        basis, figures = "operator", _operator_bill(ended)
    elif sources.readings_kept:
        basis = "evidence"
        shown, _ = replayed(ended, readings, sources, policy)
        figures = evidence_differences(ended, shown, sources)
    else:
        figures = _figures(ended) + _frames(ended, sources)
    return Compared(
        basis=basis,
        figures=figures,
        recorded=_revision(ended, sources.revision),
        published=_carried(ended, sources.carriers),
        settled=_entries(ended, sources.entries_minor),
    )


def _by_operator(ended: Transaction, sources: AuditSources) -> bool:
    if ended.energy_source == OPERATOR or ended.billing == VOID:
        return True
    return sources.decided_by not in {None, CHARGER, CSMS}


def evidence_differences(ended: Transaction, shown: Transaction, sources: AuditSources) -> list[Difference]:
    """Compare a transaction with its replay."""
    start = "the stored start" if sources.start is None else "the StartTransaction"
    stop = "the stored stop" if sources.stop is None else "the StopTransaction"
    found = _compared(ended, shown, _BY_START, start)
    found += _compared(ended, shown, _BY_STOP, stop)
    found += _compared(ended, shown, _BY_EVIDENCE, "the readings, the start and the stop")
    priced = _BY_PRICE if sources.statuses_kept or not ended.tariff.charges("idle") else ()
    found += _compared(ended, shown, priced, "the tariff of the transaction")
    if not found and ended.register is not None and ended.revision == 1 and not ended.inferred:
        # Late readings of an inferred end still change its register, and so does a second end, but nothing else. How many
        # readings there are decides nothing.
        assert shown.register is not None
        shown = replace(shown, register=replace(shown.register, readings=ended.register.readings))
        found += _compared(ended, shown, ("register",), "the readings, the start and the stop")
    return found


def _operator_bill(ended: Transaction) -> list[Difference]:
    """The figures are the operator's: the revision has them. Only the price follows from them."""
    if ended.billing == VOID:
        nothing = replace(ended, cost_minor=0, cost=Decimal(0))
        return _compared(ended, nothing, ("cost_minor", "cost"), "the bill is void")
    return _price(ended)


def _figures(ended: Transaction) -> list[Difference]:
    """Compare figures with each other, where the readings are no longer stored."""
    register = ended.register
    found = []
    if register is not None:
        energy_wh = register.energy_wh
        shown = replace(ended, energy_wh=energy_wh)
        found += _compared(ended, shown, ("energy_wh",), "the register of the session")
        missing = tuple(word for word in register.anomalies if word not in ended.anomalies)
        shown = replace(ended, anomalies=(*ended.anomalies, *missing))
        found += _compared(ended, shown, ("anomalies",), "the register of the session")
    if ended.stopped_at is not None and ended.stopped_at >= ended.started_at:
        lasted = [
            duration_s(began_at, ended_at)
            for began_at in (ended.started_at, ended.start_received_at)
            for ended_at in (ended.stopped_at, ended.stop_received_at or ended.stopped_at)
        ]
        if "clock_changed" not in ended.anomalies and ended.duration_s not in lasted:
            shown = replace(ended, duration_s=lasted[0])
            found += _compared(ended, shown, ("duration_s",), "the times of start and stop")
    return found + _price(ended)


def _frames(ended: Transaction, sources: AuditSources) -> list[Difference]:
    """Compare what was reported, where only the frames are still stored."""
    found = []
    start, stop = sources.start, sources.stop
    if start is not None:
        shown = replace(
            ended,
            connector_id=start.connector_id,
            id_tag=start.id_tag,
            started_at=start.at or ended.started_at,
        )
        found += _compared(ended, shown, ("connector_id", "id_tag", "started_at"), "the StartTransaction")
    if stop is not None:
        shown = replace(ended, stopped_at=stop.at or ended.stopped_at, stop_reason=stop.reason)
        if stop.meter_wh is not None:
            shown = replace(shown, meter_stop_wh=stop.meter_wh)
        found += _compared(
            ended, shown, ("stopped_at", "stop_reason", "meter_stop_wh"), "the StopTransaction"
        )
    return found


def _price(ended: Transaction) -> list[Difference]:
    """Compare the cost with energy and duration, or with the bill's lines if it depends on when energy was drawn."""
    if ended.tariff.needs_timeline:
        if ended.bill is None:
            return []
        total = sum(line.amount_minor for line in ended.bill.lines)
        return _compared(
            ended, replace(ended, cost_minor=total), ("cost_minor",), "the components of the bill"
        )
    cost = session_cost(ended.tariff, ended.energy_wh or 0, ended.duration_s or Decimal(0))
    shown = replace(ended, cost_minor=cost.amount_minor, cost=cost.amount)
    return _compared(ended, shown, ("cost_minor", "cost"), "the tariff of the transaction")


def _compared(stored: Struct, shown: Struct, names: Iterable[str], why: str) -> list[Difference]:
    return [
        Difference(field=name, stored=getattr(stored, name), recomputed=getattr(shown, name), why=why)
        for name in names
        if not _same(getattr(stored, name), getattr(shown, name))
    ]


def _same(stored: Any, shown: Any) -> bool:
    if isinstance(stored, tuple) and isinstance(shown, tuple):
        return sorted(stored) == sorted(shown)
    return bool(stored == shown)


# --- what carries the bill --------------------------------------------------------------------------------------------


def _revision(ended: Transaction, revision: TransactionRevision | None) -> list[Difference]:
    if revision is None:
        if ended.billing != VOID and ended.energy_source != OPERATOR:
            return []
        why = "a bill that an operator made has a revision"
        return [Difference(field="revision", stored=ended.revision, recomputed=None, why=why)]
    if revision.revision != ended.revision:
        why = "the newest recorded revision"
        return [Difference(field="revision", stored=ended.revision, recomputed=revision.revision, why=why)]
    why = f"revision {revision.revision} by {revision.author}"
    return [
        Difference(field=name, stored=stored, recomputed=recorded, why=why)
        for name in BilledState.__struct_fields__
        if not _same(stored := getattr(ended, name), recorded := getattr(revision.state, name))
    ]


def _carried(ended: Transaction, carriers: Sequence[Event]) -> list[Difference]:
    """Compare the events of the newest revision with the transaction. Events that are no longer stored are not missed."""
    published = _published(carriers)
    if not published:
        return []
    newest = max(published)
    if newest != ended.revision:
        why = "the newest revision that was published"
        return [Difference(field="revision", stored=ended.revision, recomputed=newest, why=why)]
    return _event_differences(ended, published[newest])


def contradictions(shown: Transaction, carriers: Sequence[Event]) -> list[Difference]:
    """Return what the events of the newest revision say otherwise than a transaction. A missing event says nothing."""
    published = _published(carriers)
    if not published:
        return []
    newest = max(published)
    found = _event_differences(replace(shown, revision=newest), published[newest])
    return [difference for difference in found if "." in difference.field]


def newest_revision(ended: Transaction, sources: AuditSources) -> int:
    """Return the highest number of a revision that is stored, recorded or published."""
    numbers: list[int] = [ended.revision, *_published(sources.carriers)]
    if sources.revision is not None:
        numbers.append(sources.revision.revision)
    return max(numbers)


def _published(carriers: Sequence[Event]) -> dict[int, dict[str, dict[str, Any]]]:
    """Return the payloads of events, by revision and type."""
    published: dict[int, dict[str, dict[str, Any]]] = {}
    for event in carriers:
        payload = msgspec.json.decode(event.body)["payload"]
        published.setdefault(payload.get("revision", 1), {})[event.event_type] = payload
    return published


def _event_differences(ended: Transaction, stored: dict[str, dict[str, Any]]) -> list[Difference]:
    found = []
    for draft in (events.completed(ended), events.bill(ended, _stored_cost(ended))):
        name = draft.event_type
        shown = msgspec.json.decode(msgspec.json.encode(draft.payload))
        if name not in stored:
            why = f"revision {ended.revision} is published by {name}"
            found.append(Difference(field=f"event {name}", stored=None, recomputed=name, why=why))
            continue
        unknown = _RATES if ended.tariff.needs_timeline or ended.billing == VOID else frozenset()
        if ended.tariff.needs_timeline and ended.bill is None:
            unknown |= {"breakdown", "tax"}
        payload = stored[name]
        found += [
            Difference(
                field=f"event {name}.{key}",
                stored=payload.get(key),
                recomputed=shown.get(key),
                why="the transaction",
            )
            for key in sorted(payload.keys() | shown.keys())
            if key not in unknown and payload.get(key) != shown.get(key)
        ]
    return found


def _stored_cost(ended: Transaction) -> Cost:
    """Return the cost as it is stored; a rate and a component that are not stored follow from energy and duration."""
    cost = session_cost(ended.tariff, ended.energy_wh or 0, ended.duration_s or Decimal(0))
    bill = ended.bill
    if bill is None:
        bill = Bill() if ended.billing == VOID else cost.bill
    minor = ended.cost_minor or 0
    amount = ended.cost
    if amount is None:
        amount = Decimal(minor).scaleb(-minor_digits(ended.tariff.currency))
    return replace(cost, amount=amount, amount_minor=minor, bill=bill)


def _entries(ended: Transaction, entries_minor: int | None) -> list[Difference]:
    """Compare the account entries with the cost."""
    if ended.account_id is None or ended.billing == HELD:
        return []
    if paid_for(ended, entries_minor):
        return []
    why = f"the entries of account {ended.account_id} for this transaction"
    debited = -(entries_minor or 0)
    return [Difference(field="cost_minor", stored=ended.cost_minor, recomputed=debited, why=why)]


def paid_for(ended: Transaction, entries_minor: int | None) -> bool:
    """Return whether account entries add up to a cost. A session without energy may have been free."""
    debited = -(entries_minor or 0)
    return debited == (ended.cost_minor or 0) or (ended.energy_wh == 0 and debited == 0)
