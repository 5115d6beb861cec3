"""A station's states as OCPP 1.6 statuses, and its rentals as reports. Pure."""

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
    """A station's status in OCPP 1.6 terms."""

    status: str
    error_code: str = "NoError"
    info: str | None = None


STATION_OFFLINE: Final = StationStatus("Unavailable", info="offline")


def station_status(packet: StatusPacket, measurements: Measurements) -> StationStatus:
    """Map a packet in one of the vendor's six states."""
    status = _STATUS[packet.status]
    if packet.status == READY:
        if packet.out_active:
            return StationStatus("Faulted", "PowerSwitchFailure", "output_on_in_ready")
        if packet.doors_closed is False:
            return StationStatus("Faulted", "ConnectorLockFailure", "door_open_in_ready")
    volts = measurements.voltage_v
    if packet.status in {BUSY, CHARGING, COMPLETED} and volts is not None:
        if volts < _LOW_V:
            return StationStatus(status, "UnderVoltage")
        if volts > _HIGH_V:
            return StationStatus(status, "OverVoltage")
    return StationStatus(status)


def unknown_status(status: str, last: StationStatus | None) -> StationStatus:
    """Map a state that the vendor's document does not name: the last status is kept."""
    return StationStatus(
        "Unavailable" if last is None else last.status, "OtherError", f"unknown_status:{status}"[:50]
    )


def status_report(charger_id: str, status: StationStatus, at: datetime) -> reports.Status:
    return reports.Status(
        charger_id=charger_id,
        connector_id=STATION_CONNECTOR_ID,
        status=status.status,
        error_code=status.error_code,
        info=status.info,
        at=at,
    )


def start_report(charger_id: str, rental: StationRental) -> reports.Start:
    return reports.Start(
        charger_id=charger_id,
        connector_id=STATION_CONNECTOR_ID,
        id_tag=rental.uid,
        account_id=rental.uid,
        key=f"{rental.uid}|{rental.started_at.isoformat()}",
        meter_wh=rental.meter_start_wh,
        at=rental.started_at,
    )


def meter_report(charger_id: str, rental: StationRental) -> reports.Meter:
    """Return a reading of the open transaction, whose id the station's handler fills in."""
    return reports.Meter(
        charger_id=charger_id,
        connector_id=STATION_CONNECTOR_ID,
        readings=[_reading(rental, "Sample.Periodic")],
    )


def stop_report(charger_id: str, rental: StationRental, reason: str, *, inferred: bool) -> reports.Stop:
    return reports.Stop(
        charger_id=charger_id,
        transaction_id=None,
        meter_wh=rental.register_wh,
        at=rental.station_time,
        reason=reason,
        id_tag=rental.uid,
        readings=[_reading(rental, "Transaction.End")],
        inferred=inferred,
        anomalies=tuple(rental.flags),
    )


def _reading(rental: StationRental, context: str) -> reports.Reading:
    measured = rental.measurements
    samples: tuple[tuple[str, float | None, str | None], ...] = (
        ("Energy.Active.Import.Register", rental.register_wh, "Wh"),
        ("Power.Active.Import", measured.power_w, "W"),
        ("Current.Import", measured.current_a, "A"),
        ("Voltage", measured.voltage_v, "V"),
        ("Frequency", measured.frequency_hz, "Hz"),
        ("Power.Factor", measured.power_factor, None),
    )
    return reports.Reading(
        at=rental.station_time,
        samples=[
            reports.SampledValue(value=_text(value), context=context, measurand=measurand, unit=unit)
            for measurand, value, unit in samples
            if value is not None
        ],
    )


def _text(value: float) -> str:
    return f"{round(value, 3):f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
