"""Steps to reports, the domain's words. Pure. What is personal in a frame does not pass."""

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
REGISTER: Final = "Energy.Active.Import.Register"
_COLDEST_C, _HOTTEST_C = -30, 100


def report_of(
    step: SessionBegan | RegisterRead | SessionEnded | ConnectorStatus,
    charger_id: str,
    *,
    id_tag: str,
    transaction_id: int | None,
    at: datetime,
) -> Report[Any]:
    """One step as a report. `transaction_id`: of the open session, if there is one."""
    match step:
        case SessionBegan():
            return reports.Start(
                charger_id=charger_id,
                connector_id=CHARGER_CONNECTOR_ID,
                id_tag=id_tag,
                key=step.key,
                meter_wh=step.meter_wh,
                at=step.at,
                anomalies=step.anomalies,
            )
        case RegisterRead():
            return reports.Meter(
                charger_id=charger_id,
                connector_id=CHARGER_CONNECTOR_ID,
                transaction_id=transaction_id if step.told else None,
                readings=(reading(step),),
                published=step.told,
            )
        case SessionEnded():
            closing = Reading(at=step.at, samples=(_register(step.meter_wh, context="Transaction.End"),))
            return reports.Stop(
                charger_id=charger_id,
                transaction_id=transaction_id,
                meter_wh=step.meter_wh,
                at=step.at,
                reason=step.reason,
                readings=(closing,) if step.closing else (),
                anomalies=tuple(dict.fromkeys(step.anomalies)),
            )
        case ConnectorStatus():
            return reports.Status(
                charger_id=charger_id,
                connector_id=CHARGER_CONNECTOR_ID,
                status=step.status,
                error_code=step.error_code,
                info=step.info,
                vendor_error_code=step.vendor_error_code,
                at=at,
            )


def identity(info: WorkingInfo, charger_id: str) -> reports.Boot:
    """The charger's make. Its serial number is personal and stays here."""
    return reports.Boot(charger_id=charger_id, vendor=EV_METER_VENDOR, firmware_version=firmware(info))


def firmware(info: WorkingInfo) -> str | None:
    """The version as a charger writes it, or what can be shown of it."""
    return "".join(letter for letter in info.version if letter.isprintable()) or None


def reading(step: RegisterRead) -> Reading:
    """A session's reading: register, power, voltages, currents. Between sessions the register alone."""
    if not step.told:
        return Reading(at=step.at, samples=(_register(step.register_wh),))
    info, phases = step.info, active_phases(step.info)
    samples = [
        _register(step.register_wh),
        # The charger gives no power: volts times amperes, so apparent power. `Other` says that it is estimated.
        SampledValue(
            value=f"{power_w(info):.0f}", measurand="Power.Active.Import", unit="W", context="Other"
        ),
    ]
    samples += [
        SampledValue(
            value=f"{info.voltage_v[phase]:g}", measurand="Voltage", unit="V", phase=f"L{phase + 1}-N"
        )
        for phase in phases
    ]
    samples += [
        SampledValue(
            value=f"{info.current_a[phase]:g}", measurand="Current.Import", unit="A", phase=f"L{phase + 1}"
        )
        for phase in phases
    ]
    samples.append(SampledValue(value=str(info.set_current_a), measurand="Current.Offered", unit="A"))
    if (celsius := temperature_c(info)) is not None:
        samples.append(SampledValue(value=str(celsius), measurand="Temperature", unit="Celsius"))
    if step.deferred:
        # Both of the charger's own counters, since the register above is made from them.
        samples.append(_register(info.total_wh, location="Inlet"))
        samples.append(
            SampledValue(value=str(info.session_wh), measurand="Energy.Active.Import.Interval", unit="Wh")
        )
    return Reading(at=step.at, samples=tuple(samples))


def power_w(info: WorkingInfo) -> float:
    """Apparent power over the active phases."""
    return sum(info.voltage_v[phase] * info.current_a[phase] for phase in active_phases(info))


def temperature_c(info: WorkingInfo) -> int | None:
    """A byte that is a temperature on some units and something else on others; 0 and what no charger has is none."""
    signed = info.temperature - 256 if info.temperature > 127 else info.temperature
    return signed if signed and _COLDEST_C <= signed <= _HOTTEST_C else None


def _register(register_wh: int, **more: str) -> SampledValue:
    return SampledValue(value=str(register_wh), measurand=REGISTER, unit="Wh", **more)
