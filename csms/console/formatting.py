"""Figures, times and events as people read them."""

import hashlib
import json
import re
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from csms.core.currencies import minor_digits
from csms.core.pricing import BillLine, Cost
from csms.core.quarantine import repairable_message
from csms.core.records import Event
from csms.core.tariffs import DAYS, NO_BAND, Tariff

_WORDS = re.compile("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
NO_VALUE = "\N{EN DASH}"


def kwh(energy_wh: int | None) -> str:
    return NO_VALUE if energy_wh is None else f"{energy_wh / 1000:,.2f} kWh"


def kw(power_w: int | None) -> str:
    return NO_VALUE if power_w is None else f"{power_w / 1000:,.1f} kW"


def money(cost: Cost) -> str:
    return f"{cost.amount:,.{minor_digits(cost.currency)}f} {cost.currency}"


def prices(tariff: Tariff) -> str:
    """`0.35 EUR/kWh + 0.02 EUR/min`, and what else there is to know of them."""
    more = []
    if tariff.charges("idle") and tariff.idle_grace_min:
        more.append(f"idle after {tariff.idle_grace_min} min")
    if tariff.bands:
        more.append(f"{len(tariff.bands)} band{'s' if len(tariff.bands) > 1 else ''}")
    if tariff.minimum is not None:
        more.append(f"at least {_plain(tariff.minimum)} {tariff.currency}")
    if tariff.maximum is not None:
        more.append(f"at most {_plain(tariff.maximum)} {tariff.currency}")
    if tariff.tax_percent is not None:
        how = "with" if tariff.tax_included else "plus"
        more.append(f"{how} {_plain(tariff.tax_percent)} % tax")
    return ", ".join([base_prices(tariff), *more])


def base_prices(tariff: Tariff) -> str:
    """The rates outside of any band."""
    return _rates(tariff, NO_BAND, session_fee=tariff.session_fee)


def band_prices(tariff: Tariff) -> list[str]:
    """For each band its times and rates."""
    return [
        f"{band.name}, {_days(band.days)}{band.start} to {band.end}: {_rates(tariff, i)}"
        for i, band in enumerate(tariff.bands)
    ]


def component(line: BillLine) -> str:
    """`energy, night`, as a line of a bill."""
    return line.component if line.band is None else f"{line.component}, {line.band}"


def minor_money(amount: int, currency: str) -> str:
    digits = minor_digits(currency)
    return f"{Decimal(amount).scaleb(-digits):,.{digits}f} {currency}"


def account_url(account_id: str) -> str:
    return f"/accounts/{quote(account_id, safe='')}"


def _rates(tariff: Tariff, band: int, session_fee: Decimal = Decimal(0)) -> str:
    parts = [
        f"{_plain(rate)} {tariff.currency}{per}"
        for rate, per in (
            (tariff.rate("energy", band), "/kWh"),
            (tariff.rate("time", band), "/min"),
            (session_fee, " a session"),
            (tariff.rate("idle", band), "/idle min"),
        )
        if rate
    ]
    return " + ".join(parts) or "free"


def _days(days: tuple[str, ...]) -> str:
    return "" if len(days) == len(DAYS) else f"{' '.join(day.capitalize() for day in days)} "


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def duration(seconds: Decimal | float) -> str:
    """Whole minutes: what is on a page changes no more often than it must."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return "< 1 min"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    seconds = (now - moment).total_seconds()
    return "just now" if seconds < 90 else f"{duration(seconds)} ago"


def utc_time(value: datetime | None) -> str:
    """For readers without the script that shows it in their own zone."""
    return NO_VALUE if value is None else value.strftime("%d %b %Y %H:%M:%S UTC")


def spaced(word: str | None) -> str:
    """`SuspendedEVSE` as `Suspended EVSE`, `EVDisconnected` as `EV Disconnected`."""
    if not word:
        return "Unknown"
    return _WORDS.sub(" ", word)


def charger_url(charger_id: str) -> str:
    return f"/chargers/{quote(charger_id, safe='')}"


def dom_id(charger_id: str) -> str:
    """Something that can stand in an `id` attribute, whatever the charger calls itself."""
    return hashlib.blake2b(charger_id.encode(errors="replace"), digest_size=6).hexdigest()


def pretty_json(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def event_line(event: Event) -> str:
    """A business event in one line."""
    payload: dict[str, Any] = json.loads(event.body).get("payload", {})
    parts = []
    if "transactionId" in payload:
        parts.append(f"transaction {payload['transactionId']}")
    if "connectorId" in payload:
        parts.append(f"connector {payload['connectorId']}")
    match event.event_type:
        case "started":
            parts.append(f"tag {payload.get('idTag')}")
        case "completed" | "updated":
            parts.append(f"{payload.get('energyUsed')} kWh in {payload.get('duration')} min")
            parts.append(str(payload.get("reason")))
        case "meter_reading":
            if "currentPower" in payload:
                parts.append(f"{payload['currentPower']} kW")
            if "sessionEnergy" in payload:
                parts.append(f"{payload['sessionEnergy']} kWh")
        case "status_changed":
            parts.append(f"{payload.get('previousStatus')} → {payload.get('status')}")
            if payload.get("errorCode") not in {None, "NoError"}:
                parts.append(str(payload["errorCode"]))
        case "session_cost":
            parts.append(f"{payload.get('estimatedCost')} {payload.get('currency')}")
    return " · ".join(parts)


def repair_draft(held: Any) -> str:
    """A message in quarantine as JSON to mend; what cannot be read starts from nothing."""
    return json.dumps(repairable_message(held.action, held.payload) or {}, indent=2, ensure_ascii=False)
