"""The figures of a session: final, or so far while it runs. And one status for a whole charger."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import Struct

from csms.core import session_timeline
from csms.core.pricing import Bill, Cost, duration_s, session_cost
from csms.core.records import Connector, Transaction
from csms.db.transaction_views import TransactionView

# In order of importance to an operator who sees one status for several connectors.
_BY_IMPORTANCE = (
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


class SessionFigures(Struct, frozen=True, kw_only=True):
    energy_wh: int | None
    duration_s: Decimal
    power_w: int | None
    soc_percent: float | None
    cost: Cost


def progress(session: TransactionView, now: datetime) -> SessionFigures:
    """Of a running session the figures come from the connector's last reading, if that names this transaction."""
    t, plug = session.transaction, session.connector
    if t.stopped_at is not None:
        seconds = t.duration_s if t.duration_s is not None else duration_s(t.started_at, t.stopped_at)
        amount = t.cost if t.cost is not None else Decimal(0)
        bill = t.bill or _plain_bill(t, seconds)
        cost = Cost(amount=amount, amount_minor=t.cost_minor or 0, currency=t.tariff.currency, bill=bill)
        return SessionFigures(
            energy_wh=t.energy_wh, duration_s=seconds, power_w=None, soc_percent=None, cost=cost
        )
    mine = plug is not None and plug.reading_transaction_id == t.id
    read_at = plug.reading_at if plug is not None and mine else None
    seconds = _so_far(t, read_at, now)
    register = plug.energy_wh if plug is not None and mine else None
    energy_wh = None if register is None else max(register - t.meter_start_wh, 0)
    timeline = None
    if t.tariff.needs_timeline:
        until = t.started_at + timedelta(microseconds=int(seconds * 1_000_000))
        timeline = session_timeline.running_timeline(t, until, energy_wh or 0, session.evidence, read_at)
    return SessionFigures(
        energy_wh=energy_wh,
        duration_s=seconds,
        power_w=plug.power_w if plug is not None and mine else None,
        soc_percent=plug.soc_percent if plug is not None and mine else None,
        cost=session_cost(t.tariff, energy_wh or 0, seconds, timeline),
    )


def _plain_bill(t: Transaction, seconds: Decimal) -> Bill:
    """The bill of a session stored without one, unless an older release has priced it differently."""
    cost = session_cost(t.tariff, t.energy_wh or 0, seconds)
    return cost.bill if not t.tariff.needs_timeline and cost.amount_minor == t.cost_minor else Bill()


def _so_far(t: Transaction, read_at: datetime | None, now: datetime) -> Decimal:
    """The duration by one clock: by the charger's, from start to last reading, where it is far from ours."""
    if abs(t.start_received_at - t.started_at) > _CLOCKS_APART:
        if read_at is not None and read_at >= t.started_at:
            return duration_s(t.started_at, read_at)
        return duration_s(t.start_received_at, now)
    return duration_s(t.started_at, now)


def summary(connectors: Sequence[Connector]) -> str | None:
    """One status for the whole charger: a fault or outage of the whole, else the most important of its connectors'."""
    whole = next((c.status for c in connectors if c.connector_id == 0), None)
    if whole in {"Faulted", "Unavailable"}:
        return whole
    known = {c.status for c in connectors if c.connector_id != 0 and c.status is not None}
    return next((status for status in _BY_IMPORTANCE if status in known), whole)
