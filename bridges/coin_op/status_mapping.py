"""A station's states in OCPP 1.6 words, its rental as reports. Pure."""

from datetime import datetime
from typing import Final

from msgspec import Struct

from bridges.coin_op.meter_units import Measurements
from bridges.coin_op.packet import BUSY, CHARGING, COMPLETED, DONE, INIT, READY, StatusPacket
from bridges.coin_op.rental import StationRental
from csms.core import reports

STATION_CONNECTOR_ID: Final = 1
_LOW_V, _HIGH_V = 180, 260
_STATUS: Final = {
    INIT: "Unavailable",
    READY: "Available",
    BUSY: "Preparing",
    CHARGING: "Charging",
    COMPLETED: "SuspendedEV",
    DONE: "Finishing",
}


class StationStatus(Struct, frozen=True):
    """A connector's status as OCPP says it."""

    status: str
    error_code: str = "NoError"
    info: str | None = None


STATION_OFFLINE: Final = StationStatus("Unavailable", info="offline")


def station_status(packet: StatusPacket, values: Measurements) -> StationStatus:
    status = _STATUS[packet.status]
    if packet.status == READY:
        if packet.out_active:
            return StationStatus("Faulted", "PowerSwitchFailure", "output_on_in_ready")
        if packet.doors_closed is False:
            return StationStatus("Faulted", "ConnectorLockFailure", "door_open_in_ready")
    volts = values.voltage_v
    if packet.status in {BUSY, CHARGING, COMPLETED} and volts is not None:
        if volts < _LOW_V:
            return StationStatus(status, "UnderVoltage")
        if volts > _HIGH_V:
            return StationStatus(status, "OverVoltage")
    return StationStatus(status)


def unknown_status(status: str, last: StationStatus | None) -> StationStatus:
    return StationStatus(
        "Unavailable" if last is None else last.status, "OtherError", f"unknown_status:{status}"[:50]
    )


def status_report(charger_id: str, word: StationStatus, at: datetime) -> reports.Status:
    return reports.Status(
        charger_id=charger_id,
        connector_id=STATION_CONNECTOR_ID,
        status=word.status,
        error_code=word.error_code,
        info=word.info,
        at=at,
    )


def start_report(charger_id: str, session: StationRental) -> reports.Start:
    return reports.Start(
        charger_id=charger_id,
        connector_id=STATION_CONNECTOR_ID,
        id_tag=session.uid,
        account_id=session.uid,
        key=f"{session.uid}|{session.started_at.isoformat()}",
        meter_wh=session.meter_start_wh,
        at=session.started_at,
    )


def meter_report(charger_id: str, session: StationRental) -> reports.Meter:
    """Of the running transaction, whose number the adapter knows."""
    return reports.Meter(
        charger_id=charger_id,
        connector_id=STATION_CONNECTOR_ID,
        readings=[_reading(session, "Sample.Periodic")],
    )


def stop_report(charger_id: str, session: StationRental, reason: str, *, inferred: bool) -> reports.Stop:
    return reports.Stop(
        charger_id=charger_id,
        transaction_id=None,
        meter_wh=session.register_wh,
        at=session.moment,
        reason=reason,
        id_tag=session.uid,
        readings=[_reading(session, "Transaction.End")],
        inferred=inferred,
        anomalies=tuple(session.flags),
    )


def _reading(session: StationRental, context: str) -> reports.Reading:
    values = session.values
    given: tuple[tuple[str, float | None, str | None], ...] = (
        ("Energy.Active.Import.Register", session.register_wh, "Wh"),
        ("Power.Active.Import", values.power_w, "W"),
        ("Current.Import", values.current_a, "A"),
        ("Voltage", values.voltage_v, "V"),
        ("Frequency", values.frequency_hz, "Hz"),
        ("Power.Factor", values.power_factor, None),
    )
    return reports.Reading(
        at=session.moment,
        samples=[
            reports.SampledValue(value=_text(value), context=context, measurand=measurand, unit=unit)
            for measurand, value, unit in given
            if value is not None
        ],
    )


def _text(value: float) -> str:
    return f"{round(value, 3):f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
