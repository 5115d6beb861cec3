"""Read values of undocumented JSON, in which numbers may be strings and any value may be null."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from bridges.charge_amps.cloud import PhaseMeasurement
from csms.scheduling.prices import parse_price as number

__all__ = ["items", "moment", "number", "phases", "power_w", "text", "whole"]


def text(value: Any) -> str | None:
    """Return a text or a number as text; None: empty, missing or of another type."""
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        return None
    return str(value).strip() or None


def whole(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def moment(value: Any) -> datetime | None:
    """Return a time in UTC. Times of the cloud without an offset are in UTC."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def items(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list. A single object counts as a list of one."""
    found = [value] if isinstance(value, dict) else value
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def phases(measured: list[tuple[Any, Any, Any]]) -> tuple[PhaseMeasurement, ...]:
    """Read (name, amperes, volts) of each phase. Phases without both are left out."""
    found = [
        PhaseMeasurement(str(name), number(current), number(voltage)) for name, current, voltage in measured
    ]
    return tuple(phase for phase in found if (phase.current_a, phase.voltage_v) != (None, None))


def power_w(kilowatts: Any, measured: tuple[PhaseMeasurement, ...]) -> int | None:
    """Return the power in the answer, or else the sum over the phases of current times voltage."""
    given_kw = number(kilowatts)
    if given_kw is not None:
        return round(given_kw * 1000)
    products = [
        phase.current_a * phase.voltage_v
        for phase in measured
        if phase.current_a is not None and phase.voltage_v is not None
    ]
    return round(sum(products, Decimal(0))) if products else None
