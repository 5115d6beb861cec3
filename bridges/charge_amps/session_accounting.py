"""Derive a connector's transactions, readings and statuses from polls and history. Pure.

What must survive a restart is in the ledger.
"""

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

_UNAVAILABLE_AFTER_POLLS: Final = 3
_MAX_ID_TAG: Final = 20
_REMOTE_START_VALID_FOR: Final = timedelta(minutes=10)
# These end a session of a charger that has no session ids.
_END_STATUSES: Final = {"Available", "Finishing"}


class OpenTransaction(Struct, frozen=True, kw_only=True):
    """The open transaction. `session_id` None: the cloud has none, and `base_kwh` is its counter at the start."""

    transaction_id: int
    meter_start_wh: int
    session_id: str | None = None
    base_kwh: Decimal | None = None


class RemoteStart(Struct, frozen=True, kw_only=True):
    """A remote start of the bridge, whose session has not been seen yet."""

    id_tag: str
    reference: str
    at: datetime


def session_key(session_id: str) -> str:
    return f"session-{session_id}"


def counted_session_key(connector_id: int, started_at: datetime, base_kwh: Decimal) -> str:
    """Return the key of a transaction without a session id. It has what a restarted bridge needs to go on with it."""
    return f"counted-{connector_id}-{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{base_kwh.normalize():f}"


def base_kwh_of_key(key: str) -> Decimal | None:
    if not key.startswith("counted-"):
        return None
    try:
        return Decimal(key.split("-", 3)[3])
    except (InvalidOperation, IndexError):
        return None


def id_tag(session: CloudSession | None, remote_start: RemoteStart | None) -> str:
    """Return the idTag of a session (at most 20 characters): its card, the remote start's, or the cloud's user."""
    rfid = (session.rfid or "").upper() if session is not None else ""
    if rfid.strip("0") and len(rfid) <= _MAX_ID_TAG:
        return rfid
    if remote_start is not None:
        return remote_start.id_tag
    if session is not None and session.user_id:
        return f"CA-{session.user_id}"[:_MAX_ID_TAG]
    return "CA-UNKNOWN"


class SessionAccounting:
    """The sessions of one connector.

    `register_wh` is the register that the bridge keeps, since the cloud counts each session from 0. The order of calls
    in one poll: `detect_end`, then the stop of `closing` (history may need some polls to have it), `is_new_session`,
    `meter_report`, `status_report`.
    """

    def __init__(self, charger_id: str, connector_id: int) -> None:
        self.charger_id = charger_id
        self.connector_id = connector_id
        self.register_wh = 0
        self.recorded_until: datetime | None = None
        self.open_transaction: OpenTransaction | None = None
        self.closing: OpenTransaction | None = None
        self.closing_since: datetime | None = None
        self.postponed: list[OpenTransaction] = []
        self.remote_start: RemoteStart | None = None
        self.remotely_stopped_id: int | None = None
        self.last_status: str | None = None
        self._last_kwh: Decimal | None = None
        self._finished_ids: deque[str] = deque(maxlen=50)
        self._recorded_status: tuple[str, str] | None = None
        self._unknown_polls = 0
        self._unplugged = False

    @property
    def session_energy_kwh(self) -> float | None:
        """The energy of the open session; None: there is none."""
        transaction = self.open_transaction
        return None if transaction is None else (self.register_wh - transaction.meter_start_wh) / 1000

    # --- after a restart -------------------------------------------------------------------------

    def resume(self, connector: Connector | None, transactions: Iterable[Transaction]) -> None:
        """Go on from what is on record. Without a record, sessions of the past are not recorded."""
        if connector is not None:
            self.register_wh = connector.energy_wh or 0
            self.recorded_until = connector.newest_reading_at or connector.status_recorded_at
            if connector.status is not None:
                self._recorded_status = (connector.status, connector.error_code)
        for transaction in transactions:
            if transaction.connector_id == self.connector_id:
                session_id = transaction.key.removeprefix("session-")
                self.open_transaction = OpenTransaction(
                    transaction_id=transaction.id,
                    meter_start_wh=transaction.meter_start_wh,
                    session_id=session_id if session_id != transaction.key else None,
                    base_kwh=base_kwh_of_key(transaction.key),
                )

    # --- ends ------------------------------------------------------------------------------------

    def detect_end(self, point: CloudChargePoint, polled: PolledConnector, now: datetime) -> None:
        """Notice the end of the session: its id is gone, has changed or has an end. A pause ends nothing."""
        transaction = self.open_transaction
        status = status_name(polled.status, capi=point.capi)
        if transaction is None or not point.online or status is None:
            return
        if transaction.session_id is None:
            ended = status in _END_STATUSES or polled.session_id is not None
        else:
            ended = polled.session_id != transaction.session_id or polled.session_ended_at is not None
            # An answer without a session id while energy flows is incomplete: it ends nothing.
            ended = ended and not (polled.session_id is None and status == "Charging")
        if ended:
            self._unplugged = status == "Available"
            self.closing, self.closing_since, self.open_transaction = transaction, now, None
            self._last_kwh = None

    def postpone(self) -> None:
        """Go on without the stop of `closing`. The core infers an end, and the stop from history amends it later."""
        if self.closing is not None:
            self.postponed.append(self.closing)
            self.closing = self.closing_since = None

    def stop_report(
        self, closing: OpenTransaction, session: CloudSession | None, now: datetime
    ) -> reports.Stop | None:
        """Return the stop by history, or by the bridge's own count where there is no history; None: not ended yet."""
        meter_wh, at = max(self.register_wh, closing.meter_start_wh), now
        if session is not None:
            if session.ended_at is None:
                return None
            at = session.ended_at
            if session.energy_kwh is not None:
                meter_wh = closing.meter_start_wh + _wh(session.energy_kwh)
        if self.remotely_stopped_id == closing.transaction_id:
            reason = "Remote"
        else:
            reason = "EVDisconnected" if self._unplugged else "Other"
        return self._stop(closing.transaction_id, meter_wh, at, reason)

    def missed_stop_report(self, session: CloudSession, started: reports.Started) -> reports.Stop:
        """Return the stop of a session that started and ended between two polls."""
        assert session.ended_at is not None
        meter_wh = started.meter_start_wh + _wh(session.energy_kwh or Decimal(0))
        return self._stop(started.transaction_id, meter_wh, session.ended_at, "Other", ("backfilled",))

    def _stop(
        self, transaction_id: int, meter_wh: int, at: datetime, reason: str, anomalies: tuple[str, ...] = ()
    ) -> reports.Stop:
        reading = reports.Reading(at=at, samples=(_register(meter_wh, "Transaction.End"),))
        return reports.Stop(
            charger_id=self.charger_id,
            transaction_id=transaction_id,
            meter_wh=meter_wh,
            at=at,
            reason=reason,
            readings=(reading,),
            anomalies=anomalies,
        )

    def stop_recorded(self, closing: OpenTransaction, stop: reports.Stop) -> None:
        """Note that the stop of a closing or postponed transaction is on record."""
        if closing.session_id is not None:
            self.session_finished(closing.session_id)
        if self.closing == closing:
            self.closing = self.closing_since = None
        self.postponed = [one for one in self.postponed if one != closing]
        self.session_recorded(stop)

    def session_recorded(self, stop: reports.Stop) -> None:
        """Advance register and time to a stop that is on record."""
        assert stop.meter_wh is not None
        assert stop.at is not None
        self.register_wh = max(stop.meter_wh, self.register_wh)
        if self.recorded_until is None or stop.at > self.recorded_until:
            self.recorded_until = stop.at

    def session_finished(self, session_id: str) -> None:
        """Note that a session must not be started again, although the cloud may still show it."""
        self._finished_ids.append(session_id)

    # --- starts ----------------------------------------------------------------------------------

    def is_new_session(self, point: CloudChargePoint, polled: PolledConnector) -> bool:
        """Return whether the connector has a session without a transaction."""
        if self.open_transaction is not None or not point.online:
            return False
        if polled.session_id is not None:
            ending = [one.session_id for one in (self.closing, *self.postponed) if one is not None]
            return polled.session_id not in [*self._finished_ids, *ending]
        status = status_name(polled.status, capi=point.capi)
        return status == "Charging" and polled.energy_kwh is not None

    def start_report(
        self, polled: PolledConnector, session: CloudSession | None, now: datetime
    ) -> reports.Start:
        """Return the start of a new session. `session`: its entry in the history, if any."""
        started_at = (session.started_at if session is not None else None) or polled.session_started_at or now
        key = (
            session_key(polled.session_id)
            if polled.session_id is not None
            else counted_session_key(self.connector_id, started_at, polled.energy_kwh or Decimal(0))
        )
        return self._start(key, started_at, session, now)

    def missed_start_report(self, session: CloudSession, now: datetime) -> reports.Start:
        """Return the start of a session that is only in the history."""
        return self._start(session_key(session.id), session.started_at, session, now)

    def _start(
        self, key: str, started_at: datetime, session: CloudSession | None, now: datetime
    ) -> reports.Start:
        return reports.Start(
            charger_id=self.charger_id,
            connector_id=self.connector_id,
            id_tag=id_tag(session, self._remote_start_of(session, now)),
            key=key,
            meter_wh=self.register_wh,
            at=started_at,
        )

    def start_recorded(self, start: reports.Start, started: reports.Started, polled: PolledConnector) -> None:
        """Note that the start of a session is on record, since now or since before."""
        self.open_transaction = OpenTransaction(
            transaction_id=started.transaction_id,
            meter_start_wh=started.meter_start_wh,
            session_id=polled.session_id,
            base_kwh=base_kwh_of_key(start.key),
        )
        self.remote_start = None
        self._last_kwh = None

    def _remote_start_of(self, session: CloudSession | None, now: datetime) -> RemoteStart | None:
        start = self.remote_start
        if start is None or now - start.at > _REMOTE_START_VALID_FOR:
            return None
        if session is not None and session.external_id and session.external_id != start.reference:
            return None
        return start

    # --- readings and status ---------------------------------------------------------------------

    def meter_report(self, polled: PolledConnector, now: datetime) -> reports.Meter | None:
        """Return a reading of the open session. Values that are not in the answer are left out."""
        transaction = self.open_transaction
        if transaction is None or polled.session_id != transaction.session_id:
            return None
        samples: list[reports.SampledValue] = []
        if polled.energy_kwh is not None:
            register_wh = self._register_by_counter(transaction, polled.energy_kwh)
            self.register_wh = max(register_wh, self.register_wh)
            samples.append(_register(self.register_wh, "Sample.Periodic"))
        if polled.power_w is not None:
            samples.append(_sample("Power.Active.Import", polled.power_w, "W"))
        for phase in polled.phases:
            if phase.current_a is not None:
                samples.append(_sample("Current.Import", phase.current_a, "A", phase.name))
            if phase.voltage_v is not None:
                samples.append(_sample("Voltage", phase.voltage_v, "V", f"{phase.name}-N"))
        if not samples:
            return None
        return reports.Meter(
            charger_id=self.charger_id,
            connector_id=self.connector_id,
            transaction_id=transaction.transaction_id,
            readings=(reports.Reading(at=now, samples=samples),),
        )

    def _register_by_counter(self, transaction: OpenTransaction, kwh: Decimal) -> int:
        """Return the register by the session's counter, or by a counter of unknown kind, which may be reset."""
        if transaction.session_id is not None:
            return transaction.meter_start_wh + _wh(kwh)
        last_kwh, self._last_kwh = self._last_kwh, kwh
        if last_kwh is None:
            base_kwh = transaction.base_kwh if transaction.base_kwh is not None else kwh
            return transaction.meter_start_wh + _wh(kwh - base_kwh) if kwh >= base_kwh else self.register_wh
        return self.register_wh + _wh(kwh - last_kwh if kwh >= last_kwh else kwh)

    def status_report(
        self, point: CloudChargePoint, polled: PolledConnector, now: datetime
    ) -> reports.Status | None:
        """Return the status if it has changed. An unknown status is Unavailable once it has lasted three polls."""
        if not point.online:
            return self.unreachable_report(now)
        in_session = self.open_transaction is not None
        status = ocpp_status(polled.status, capi=point.capi, mode=polled.mode, in_session=in_session)
        if status is None:
            self._unknown_polls += 1
            if self._unknown_polls < _UNAVAILABLE_AFTER_POLLS:
                return None
            status = "Unavailable"
        else:
            self._unknown_polls = 0
        return self._changed_status(status, error_code(polled.error_code, status), now)

    def unreachable_report(self, now: datetime) -> reports.Status | None:
        """Return the status Unavailable if that is a change. The transaction stays open."""
        return self._changed_status("Unavailable", "NoError", now)

    def _changed_status(self, status: str, code: str, now: datetime) -> reports.Status | None:
        self.last_status = status
        if self._recorded_status == (status, code):
            return None
        return reports.Status(
            charger_id=self.charger_id, connector_id=self.connector_id, status=status, error_code=code, at=now
        )

    def status_recorded(self, status: reports.Status) -> None:
        """Note that a status is on record."""
        self._recorded_status = (status.status, status.error_code)


def _wh(kwh: Decimal) -> int:
    return round(kwh * 1000)


def _sample(measurand: str, value: object, unit: str, phase: str | None = None) -> reports.SampledValue:
    return reports.SampledValue(
        value=str(value), measurand=measurand, unit=unit, phase=phase, context="Sample.Periodic"
    )


def _register(register_wh: int, context: str) -> reports.SampledValue:
    return reports.SampledValue(
        value=str(register_wh), measurand="Energy.Active.Import.Register", unit="Wh", context=context
    )
