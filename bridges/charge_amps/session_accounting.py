"""One connector's books: polls and history in, reports out. Pure; what must survive a restart is in the database."""

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from msgspec import Struct

from bridges.charge_amps.cloud import CloudChargePoint, CloudSession, PolledConnector
from bridges.charge_amps.status_mapping import error_code, ocpp_status, status_name
from csms.core import reports
from csms.core.records import Connector, Transaction

_UNKNOWN_POLLS: Final = 3
_ID_TAG_MAX: Final = 20
_OWN_START_FOR: Final = timedelta(minutes=10)
# A charger that names its sessions has ended one when it says so; otherwise these two words end it.
_OVER: Final = {"Available", "Finishing"}


class OpenTransaction(Struct, frozen=True, kw_only=True):
    """The open transaction. `session_id` None: the cloud names no sessions, `base_kwh` is its counter at the start."""

    key: str
    transaction_id: int
    started_at: datetime
    meter_start_wh: int
    session_id: str | None = None
    base_kwh: Decimal | None = None


class RemoteStart(Struct, frozen=True, kw_only=True):
    """A remote start of ours that waits for its session."""

    id_tag: str
    reference: str
    at: datetime


def session_key(session_id: str) -> str:
    return f"session-{session_id}"


def counted_session_key(connector_id: int, started_at: datetime, base_kwh: Decimal) -> str:
    """The key of a transaction that only we have noticed: what is needed to go on with it after a restart is in it."""
    return f"counted-{connector_id}-{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{base_kwh.normalize():f}"


def base_kwh_of_key(key: str) -> Decimal | None:
    if not key.startswith("counted-"):
        return None
    try:
        return Decimal(key.split("-", 3)[3])
    except (InvalidOperation, IndexError):
        return None


def id_tag(session: CloudSession | None, own: RemoteStart | None) -> str:
    """Whose session it is, in at most 20 characters: the card, our own remote start, the cloud's user, nobody."""
    rfid = (session.rfid or "").upper() if session is not None else ""
    if rfid.strip("0") and len(rfid) <= _ID_TAG_MAX:
        return rfid
    if own is not None:
        return own.id_tag
    if session is not None and session.user_id:
        return f"CA-{session.user_id}"[:_ID_TAG_MAX]
    return "CA-UNKNOWN"


class SessionAccounting:
    """`register_wh` is the register we keep for the connector: the cloud counts each session from 0.

    The order within one poll: `ended`, `closing` (from history, as long as it takes), `begins`, `reading`, `status`.
    """

    def __init__(self, charger_id: str, connector_id: int) -> None:
        self.charger_id = charger_id
        self.connector_id = connector_id
        self.register_wh = 0
        self.booked_until: datetime | None = None
        self.running: OpenTransaction | None = None
        self.closing: OpenTransaction | None = None
        self.closing_since: datetime | None = None
        self.late: list[OpenTransaction] = []
        self.own_start: RemoteStart | None = None
        self.own_stop_of: int | None = None
        self.last_status: str | None = None
        self._last_kwh: Decimal | None = None
        self._finished: deque[str] = deque(maxlen=50)
        self._told: tuple[str, str] | None = None
        self._unknown = 0
        self._left = False

    # --- after a restart -------------------------------------------------------------------------

    def resume(self, connector: Connector | None, transactions: Iterable[Transaction]) -> None:
        """Go on from what is on record. `booked_until` None: nothing is, so history is none of our business."""
        if connector is not None:
            self.register_wh = connector.energy_wh or 0
            self.booked_until = connector.newest_reading_at or connector.status_recorded_at
            if connector.status is not None:
                self._told = (connector.status, connector.error_code)
        for transaction in transactions:
            if transaction.connector_id == self.connector_id:
                session_id = transaction.key.removeprefix("session-")
                self.running = OpenTransaction(
                    key=transaction.key,
                    transaction_id=transaction.id,
                    started_at=transaction.started_at,
                    meter_start_wh=transaction.meter_start_wh,
                    session_id=session_id if session_id != transaction.key else None,
                    base_kwh=base_kwh_of_key(transaction.key),
                )

    # --- ends ------------------------------------------------------------------------------------

    def ended(self, point: CloudChargePoint, view: PolledConnector, now: datetime) -> None:
        """Notice that the running session is over: its id has gone, changed or got an end. Pauses end nothing."""
        running = self.running
        status = status_name(view.status, capi=point.capi)
        if running is None or not point.online or status is None:
            return
        if running.session_id is None:
            over = status in _OVER or view.session_id is not None
        else:
            over = view.session_id != running.session_id or view.session_ended_at is not None
            # An answer without any session while energy flows is no end: somebody left a field out.
            over = over and not (view.session_id is None and status == "Charging")
        if over:
            self._left = status == "Available"
            self.closing, self.closing_since, self.running = running, now, None
            self._last_kwh = None

    def postpone(self) -> None:
        """Wait no longer with what comes next; the core infers an end, and history, when it comes, amends it."""
        if self.closing is not None:
            self.late.append(self.closing)
            self.closing = self.closing_since = None

    def stop(
        self, closing: OpenTransaction, session: CloudSession | None, now: datetime
    ) -> reports.Stop | None:
        """The end of what is closing: by history, or by our own counting where there is none."""
        if session is not None:
            if session.ended_at is None:
                return None
            meter_wh = self._from_history(closing, session)
            at = session.ended_at
        else:
            meter_wh, at = max(self.register_wh, closing.meter_start_wh), now
        return reports.Stop(
            charger_id=self.charger_id,
            transaction_id=closing.transaction_id,
            meter_wh=meter_wh,
            at=at,
            reason=self._reason(closing),
            readings=(_register(meter_wh, at, "Transaction.End"),),
        )

    def stopped(self, closing: OpenTransaction, stop: reports.Stop) -> None:
        """The end is booked."""
        if closing.session_id is not None:
            self._finished.append(closing.session_id)
        if self.closing == closing:
            self.closing = self.closing_since = None
        self.late = [one for one in self.late if one != closing]
        self.booked(stop)

    def booked(self, stop: reports.Stop) -> None:
        """A session is on record, this one or one that was missed."""
        if stop.meter_wh is not None:
            self.register_wh = max(stop.meter_wh, self.register_wh)
        if stop.at is not None and (self.booked_until is None or stop.at > self.booked_until):
            self.booked_until = stop.at

    def finished(self, session_id: str) -> None:
        self._finished.append(session_id)

    def _from_history(self, running: OpenTransaction, session: CloudSession) -> int:
        if session.energy_kwh is None:
            return max(self.register_wh, running.meter_start_wh)
        return running.meter_start_wh + _wh(session.energy_kwh)

    def _reason(self, closing: OpenTransaction) -> str:
        if self.own_stop_of == closing.transaction_id:
            return "Remote"
        return "EVDisconnected" if self._left else "Other"

    # --- beginnings ------------------------------------------------------------------------------

    def begins(self, point: CloudChargePoint, view: PolledConnector) -> bool:
        """Whether this is a session that is not on our books."""
        if self.running is not None or not point.online:
            return False
        if view.session_id is not None:
            pending = [one.session_id for one in (self.closing, *self.late) if one is not None]
            return view.session_id not in [*self._finished, *pending]
        return status_name(view.status, capi=point.capi) == "Charging" and view.energy_kwh is not None

    def start(self, view: PolledConnector, session: CloudSession | None, now: datetime) -> reports.Start:
        """`session`: what history says of it, for whose it is."""
        started_at = (session.started_at if session is not None else None) or view.session_started_at or now
        key = (
            session_key(view.session_id)
            if view.session_id is not None
            else counted_session_key(self.connector_id, started_at, view.energy_kwh or Decimal(0))
        )
        return self._start(key, started_at, session, now)

    def missed(self, session: CloudSession, now: datetime) -> reports.Start:
        """The start of a session of history."""
        return self._start(session_key(session.id), session.started_at, session, now)

    def _start(
        self, key: str, started_at: datetime, session: CloudSession | None, now: datetime
    ) -> reports.Start:
        return reports.Start(
            charger_id=self.charger_id,
            connector_id=self.connector_id,
            id_tag=id_tag(session, self._own(session, now)),
            key=key,
            meter_wh=self.register_wh,
            at=started_at,
        )

    def missed_stop(self, session: CloudSession, started: reports.Started) -> reports.Stop:
        """The end of a session of history that ended while we did not look."""
        assert session.ended_at is not None
        meter_wh = started.meter_start_wh + _wh(session.energy_kwh or Decimal(0))
        return reports.Stop(
            charger_id=self.charger_id,
            transaction_id=started.transaction_id,
            meter_wh=meter_wh,
            at=session.ended_at,
            reason="Other",
            readings=(_register(meter_wh, session.ended_at, "Transaction.End"),),
            anomalies=("backfilled",),
        )

    def started(self, report: reports.Start, answer: reports.Started, view: PolledConnector) -> None:
        """The start is booked, now or before."""
        assert report.at is not None
        self.running = OpenTransaction(
            key=report.key,
            transaction_id=answer.transaction_id,
            started_at=report.at,
            meter_start_wh=answer.meter_start_wh,
            session_id=view.session_id,
            base_kwh=base_kwh_of_key(report.key),
        )
        self.own_start = None
        self._last_kwh = None

    def _own(self, session: CloudSession | None, now: datetime) -> RemoteStart | None:
        own = self.own_start
        if own is None or now - own.at > _OWN_START_FOR:
            return None
        if session is not None and session.external_id and session.external_id != own.reference:
            return None
        return own

    # --- readings and status ---------------------------------------------------------------------

    def reading(self, view: PolledConnector, now: datetime) -> reports.Meter | None:
        """A reading of the running session. What the cloud does not say is left out: missing is not 0."""
        running = self.running
        if running is None or view.session_id != running.session_id:
            return None
        samples: list[reports.SampledValue] = []
        if view.energy_kwh is not None:
            self.register_wh = max(self._count(running, view.energy_kwh), self.register_wh)
            samples.append(_energy(self.register_wh, "Sample.Periodic"))
        if view.power_w is not None:
            samples.append(_sample("Power.Active.Import", view.power_w, "W"))
        for phase in view.phases:
            if phase.current_a is not None:
                samples.append(_sample("Current.Import", phase.current_a, "A", phase.name))
            if phase.voltage_v is not None:
                samples.append(_sample("Voltage", phase.voltage_v, "V", f"{phase.name}-N"))
        if not samples:
            return None
        return reports.Meter(
            charger_id=self.charger_id,
            connector_id=self.connector_id,
            transaction_id=running.transaction_id,
            readings=(reports.Reading(at=now, samples=samples),),
        )

    def _count(self, running: OpenTransaction, kwh: Decimal) -> int:
        """The register by a session's own counter, or by a counter of any kind, which may begin anew."""
        if running.session_id is not None:
            return running.meter_start_wh + _wh(kwh)
        last, self._last_kwh = self._last_kwh, kwh
        if last is None:
            base = running.base_kwh if running.base_kwh is not None else kwh
            return running.meter_start_wh + _wh(kwh - base) if kwh >= base else self.register_wh
        return self.register_wh + _wh(kwh - last if kwh >= last else kwh)

    def status(self, point: CloudChargePoint, view: PolledConnector, now: datetime) -> reports.Status | None:
        """The status if it is news. One that is unknown changes nothing, unless it stays so for three polls."""
        if not point.online:
            return self.away(now)
        found = ocpp_status(view.status, capi=point.capi, mode=view.mode, in_session=self.running is not None)
        if found is None:
            self._unknown += 1
            if self._unknown < _UNKNOWN_POLLS:
                return None
            found = "Unavailable"
        else:
            self._unknown = 0
        return self._news(found, error_code(view.error_code, found), now)

    def away(self, now: datetime) -> reports.Status | None:
        """It cannot be reached: unavailable, and no transaction ends by that."""
        return self._news("Unavailable", "NoError", now)

    def _news(self, status: str, code: str, now: datetime) -> reports.Status | None:
        self.last_status = status
        if self._told == (status, code):
            return None
        return reports.Status(
            charger_id=self.charger_id,
            connector_id=self.connector_id,
            status=status,
            error_code=code,
            at=now,
        )

    def told(self, status: reports.Status) -> None:
        self._told = (status.status, status.error_code)


def _wh(kwh: Decimal) -> int:
    return round(kwh * 1000)


def _sample(measurand: str, value: object, unit: str, phase: str | None = None) -> reports.SampledValue:
    return reports.SampledValue(
        value=str(value), measurand=measurand, unit=unit, phase=phase, context="Sample.Periodic"
    )


def _energy(register_wh: int, context: str) -> reports.SampledValue:
    return reports.SampledValue(
        value=str(register_wh), measurand="Energy.Active.Import.Register", unit="Wh", context=context
    )


def _register(register_wh: int, at: datetime, context: str) -> reports.Reading:
    return reports.Reading(at=at, samples=(_energy(register_wh, context),))
