"""Translate observations of a charger into reports. Pure. The personal data of a frame is left out."""

from datetime import datetime
from typing import Any, Final

from bridges.ev_meter.frame import WorkingInfo
from bridges.ev_meter.observations import RegisterRead, SessionBegan, SessionEnded
from bridges.ev_meter.session_tracker import CHARGER_CONNECTOR_ID
from bridges.ev_meter.status_mapping import ConnectorStatus, active_phases
from csms.core import reports
from csms.core.reports import Reading, Report, SampledValue

EV_METER_PROTOCOL: Final = "ev-meter"
EV_METER_VENDOR: Final = "EV-Meter"
_MIN_C, _MAX_C = -30, 100


def report_of(
    observation: SessionBegan | RegisterRead | SessionEnded | ConnectorStatus,
    charger_id: str,
    *,
    id_tag: str,
    transaction_id: int | None,
    at: datetime,
) -> Report[Any]:
    """Translate one observation. `transaction_id`: of the open session, if there is one."""
    match observation:
        case SessionBegan():
            return reports.Start(
                charger_id=charger_id,
                connector_id=CHARGER_CONNECTOR_ID,
                id_tag=id_tag,
                key=observation.key,
                meter_wh=observation.meter_wh,
                at=observation.at,
                anomalies=observation.anomalies,
            )
        case RegisterRead():
            return reports.Meter(
                charger_id=charger_id,
                connector_id=CHARGER_CONNECTOR_ID,
                transaction_id=transaction_id if observation.published else None,
                readings=(reading(observation),),
                published=observation.published,
            )
        case SessionEnded():
            closing = Reading(
                at=observation.at, samples=(_register(observation.meter_wh, context="Transaction.End"),)
            )
            return reports.Stop(
                charger_id=charger_id,
                transaction_id=transaction_id,
                meter_wh=observation.meter_wh,
                at=observation.at,
                reason=observation.reason,
                readings=(closing,) if observation.closing else (),
                anomalies=tuple(dict.fromkeys(observation.anomalies)),
            )
    return reports.Status(
        charger_id=charger_id,
        connector_id=CHARGER_CONNECTOR_ID,
        status=observation.status,
        error_code=observation.error_code,
        info=observation.info,
        vendor_error_code=observation.vendor_error_code,
        at=at,
    )


def identity(info: WorkingInfo, charger_id: str) -> reports.Boot:
    """Return vendor and firmware of a charger. Its serial number is personal data and is left out."""
    return reports.Boot(charger_id=charger_id, vendor=EV_METER_VENDOR, firmware_version=firmware(info))


def firmware(info: WorkingInfo) -> str | None:
    """Return the printable part of the version; None: there is none."""
    return "".join(letter for letter in info.version if letter.isprintable()) or None


def reading(observation: RegisterRead) -> Reading:
    """Return register, power, voltages and currents in a session; between sessions the register alone."""
    if not observation.published:
        return Reading(at=observation.at, samples=(_register(observation.register_wh),))
    info, phases = observation.info, active_phases(observation.info)
    samples = [
        _register(observation.register_wh),
        # The charger measures no power. Context `Other` marks the estimate: volts times amperes, apparent power.
        _sample(f"{power_w(info):.0f}", "Power.Active.Import", "W", context="Other"),
    ]
    samples += [_sample(f"{info.voltage_v[n]:g}", "Voltage", "V", phase=f"L{n + 1}-N") for n in phases]
    samples += [_sample(f"{info.current_a[n]:g}", "Current.Import", "A", phase=f"L{n + 1}") for n in phases]
    samples.append(_sample(str(info.set_current_a), "Current.Offered", "A"))
    if (celsius := temperature_c(info)) is not None:
        samples.append(_sample(str(celsius), "Temperature", "Celsius"))
    if observation.deferred:
        # Both counters of the charger, since the register above is derived from them.
        samples.append(_register(info.total_wh, location="Inlet"))
        samples.append(_sample(str(info.session_wh), "Energy.Active.Import.Interval", "Wh"))
    return Reading(at=observation.at, samples=tuple(samples))


def power_w(info: WorkingInfo) -> float:
    """Return the apparent power over the active phases."""
    return sum(info.voltage_v[phase] * info.current_a[phase] for phase in active_phases(info))


def temperature_c(info: WorkingInfo) -> int | None:
    """Return the temperature; None: the byte is 0 or implausible, since some units send something else in it."""
    signed = info.temperature - 256 if info.temperature > 127 else info.temperature
    return signed if signed and _MIN_C <= signed <= _MAX_C else None


def _register(register_wh: int, **more: str) -> SampledValue:
    return _sample(str(register_wh), "Energy.Active.Import.Register", "Wh", **more)


def _sample(value: str, measurand: str, unit: str, **more: str) -> SampledValue:
    return SampledValue(value=value, measurand=measurand, unit=unit, **more)
