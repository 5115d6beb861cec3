"""Values of an undocumented JSON: a number may come as a string, anything may be null."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from bridges.charge_amps.cloud import Phase
from csms.scheduling.prices import parse_price as number

__all__ = ["items", "moment", "number", "phases", "power_w", "text", "whole"]


def text(value: Any) -> str | None:
    """None for what is empty, missing or no text; numbers become text."""
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        return None
    return str(value).strip() or None


def whole(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def moment(value: Any) -> datetime | None:
    """Aware UTC; the cloud's times without an offset are UTC."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def items(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; one object alone is a list of one."""
    found = [value] if isinstance(value, dict) else value
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def phases(measured: list[tuple[Any, Any, Any]]) -> tuple[Phase, ...]:
    """(name, amperes, volts) as they came; what has neither is left out."""
    found = [Phase(str(name), number(current), number(voltage)) for name, current, voltage in measured]
    return tuple(phase for phase in found if (phase.current_a, phase.voltage_v) != (None, None))


def power_w(kilowatts: Any, measured: tuple[Phase, ...]) -> int | None:
    """Told, else the sum over the phases of current times voltage."""
    told = number(kilowatts)
    if told is not None:
        return round(told * 1000)
    products = [
        phase.current_a * phase.voltage_v
        for phase in measured
        if phase.current_a is not None and phase.voltage_v is not None
    ]
    return round(sum(products, Decimal(0))) if products else None
