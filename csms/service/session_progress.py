"""How far a session is: its final figures, or the ones so far while it runs. And one word for a charger."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import Struct

from csms.core import session_course
from csms.core.pricing import Bill, Cost, duration_s, session_cost
from csms.core.records import Connector, Transaction
from csms.db.views import Session

# The most telling first: what an operator must see of several connectors.
_TELLING = (
    "Faulted",
    "Charging",
    "SuspendedEV",
    "SuspendedEVSE",
    "Finishing",
    "Preparing",
    "Reserved",
    "Available",
    "Unavailable",
)


_CLOCKS_APART = timedelta(hours=1)


class Progress(Struct, frozen=True, kw_only=True):
    energy_wh: int | None
    duration_s: Decimal
    power_w: int | None
    soc_percent: float | None
    cost: Cost


def progress(session: Session, now: datetime) -> Progress:
    """Of a running session what the connector's last reading says, if it belongs to this transaction."""
    t, plug = session.transaction, session.connector
    if t.stopped_at is not None:
        seconds = t.duration_s if t.duration_s is not None else duration_s(t.started_at, t.stopped_at)
        amount = t.cost if t.cost is not None else Decimal(0)
        bill = t.bill or _plain_bill(t, seconds)
        cost = Cost(amount=amount, amount_minor=t.cost_minor or 0, currency=t.tariff.currency, bill=bill)
        return Progress(energy_wh=t.energy_wh, duration_s=seconds, power_w=None, soc_percent=None, cost=cost)
    mine = plug is not None and plug.reading_transaction_id == t.id
    read_at = plug.reading_at if plug is not None and mine else None
    seconds = _so_far(t, read_at, now)
    register = plug.energy_wh if plug is not None and mine else None
    energy_wh = None if register is None else max(register - t.meter_start_wh, 0)
    course = None
    if t.tariff.needs_course:
        until = t.started_at + timedelta(microseconds=int(seconds * 1_000_000))
        course = session_course.so_far(t, until, energy_wh or 0, session.evidence, read_at)
    return Progress(
        energy_wh=energy_wh,
        duration_s=seconds,
        power_w=plug.power_w if plug is not None and mine else None,
        soc_percent=plug.soc_percent if plug is not None and mine else None,
        cost=session_cost(t.tariff, energy_wh or 0, seconds, course),
    )


def _plain_bill(t: Transaction, seconds: Decimal) -> Bill:
    """Of a tariff that needs nothing else: the same again, unless an older release has priced it otherwise."""
    cost = session_cost(t.tariff, t.energy_wh or 0, seconds)
    return cost.bill if not t.tariff.needs_course and cost.amount_minor == t.cost_minor else Bill()


def _so_far(t: Transaction, read_at: datetime | None, now: datetime) -> Decimal:
    """Time is measured by one clock: where the charger's is far from ours, from its start to its last reading."""
    if abs(t.start_received_at - t.started_at) > _CLOCKS_APART:
        if read_at is not None and read_at >= t.started_at:
            return duration_s(t.started_at, read_at)
        return duration_s(t.start_received_at, now)
    return duration_s(t.started_at, now)


def summary(connectors: Sequence[Connector]) -> str | None:
    """One status for the whole charger: a fault or outage of the whole, else the most telling connector's."""
    whole = next((c.status for c in connectors if c.connector_id == 0), None)
    if whole in {"Faulted", "Unavailable"}:
        return whole
    known = {c.status for c in connectors if c.connector_id != 0 and c.status is not None}
    return next((status for status in _TELLING if status in known), whole)
