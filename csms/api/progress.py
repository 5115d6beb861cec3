"""How far a session is: its final figures, or the ones so far while it runs. And one word for a charger."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from csms.core.pricing import Cost, duration_s, session_cost
from csms.core.records import Connector
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
        cost = Cost(amount=amount, amount_minor=t.cost_minor or 0, currency=t.tariff.currency)
        return Progress(energy_wh=t.energy_wh, duration_s=seconds, power_w=None, soc_percent=None, cost=cost)
    seconds = duration_s(t.start_received_at if t.clock_suspect else t.started_at, now)
    mine = plug is not None and plug.reading_transaction_id == t.id
    register = plug.energy_wh if plug is not None and mine else None
    energy_wh = None if register is None else max(register - t.meter_start_wh, 0)
    return Progress(
        energy_wh=energy_wh,
        duration_s=seconds,
        power_w=plug.power_w if plug is not None and mine else None,
        soc_percent=plug.soc_percent if plug is not None and mine else None,
        cost=session_cost(t.tariff, energy_wh or 0, seconds),
    )


def summary(connectors: Sequence[Connector]) -> str | None:
    """One status for the whole charger: a fault or outage of the whole, else the most telling connector's."""
    whole = next((c.status for c in connectors if c.connector_id == 0), None)
    if whole in {"Faulted", "Unavailable"}:
        return whole
    known = {c.status for c in connectors if c.connector_id != 0 and c.status is not None}
    return next((status for status in _TELLING if status in known), whole)
