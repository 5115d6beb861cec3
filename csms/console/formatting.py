"""Numbers, times and events as the pages show them: the filters of the templates."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from csms.console.explanations import explained
from csms.core.currencies import minor_digits
from csms.core.masking import masked
from csms.core.pricing import BillLine, Cost
from csms.core.quarantine import repairable_message
from csms.core.records import BilledState, Event, Transaction
from csms.core.tariffs import DAYS, NO_BAND, Tariff
from csms.outside import read_json

_WORDS = re.compile("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+Z)")
_TIME_ELEMENT: Final = Markup('<time datetime="{0}" data-show="exact">{0}</time>')
NO_VALUE = "\N{EN DASH}"


def kwh(energy_wh: int | None) -> str:
    return NO_VALUE if energy_wh is None else f"{energy_wh / 1000:,.2f} kWh"


def kw(power_w: int | None) -> str:
    return NO_VALUE if power_w is None else f"{power_w / 1000:,.1f} kW"


def money(cost: Cost) -> str:
    return f"{cost.amount:,.{minor_digits(cost.currency)}f} {cost.currency}"


def figures(
    before: Transaction | BilledState | None, after: Transaction | BilledState, currency: str
) -> list[tuple[str, str | datetime, str | datetime]]:
    """Return the figures of a bill: what each is, as it was and as it is now. `before` None: the same."""
    return [
        (label, shown(after if before is None else before, currency), shown(after, currency))
        for label, shown in _FIGURES
        if shown(after, currency) != NO_VALUE
    ]


def _wh(value: int | None) -> str:
    return NO_VALUE if value is None else f"{value:,} Wh"


_FIGURES: Final[tuple[tuple[str, Callable[[Any, str], str | datetime]], ...]] = (
    ("Register at the start", lambda t, _: _wh(t.meter_start_wh)),
    ("Register at the stop", lambda t, _: _wh(t.meter_stop_wh)),
    ("Start", lambda t, _: t.started_at),
    ("Stop", lambda t, _: t.stopped_at or NO_VALUE),
    ("Duration", lambda t, _: NO_VALUE if t.duration_s is None else duration(t.duration_s)),
    ("Energy", lambda t, _: _wh(t.energy_wh)),
    ("Cost", lambda t, unit: NO_VALUE if t.cost_minor is None else minor_money(t.cost_minor, unit)),
    ("Billing", lambda t, _: t.billing or "running"),
)


def prices(tariff: Tariff) -> str:
    """Return the base rates, `0.35 EUR/kWh + 0.02 EUR/min`, and what else determines the price."""
    more = []
    if tariff.charges("idle") and tariff.idle_grace_min:
        more.append(f"idle after {tariff.idle_grace_min} min")
    if tariff.bands:
        more.append(f"{len(tariff.bands)} band{'s' if len(tariff.bands) > 1 else ''}")
    if tariff.minimum is not None:
        also = " even without energy" if tariff.minimum_without_energy else ""
        more.append(f"at least {_plain(tariff.minimum)} {tariff.currency}{also}")
    if tariff.maximum is not None:
        more.append(f"at most {_plain(tariff.maximum)} {tariff.currency}")
    if tariff.tax_percent is not None:
        how = "with" if tariff.tax_included else "plus"
        more.append(f"{how} {_plain(tariff.tax_percent)} % tax")
    return ", ".join([base_prices(tariff), *more])


def base_prices(tariff: Tariff) -> str:
    """Return the rates that apply outside of all bands."""
    return _rates(tariff, NO_BAND, session_fee=tariff.session_fee)


def band_prices(tariff: Tariff) -> list[str]:
    """Return a sentence for each band: its times and rates."""
    return [
        f"{band.name}, {_days(band.days)}{band.start} to {band.end}: {_rates(tariff, i)}"
        for i, band in enumerate(tariff.bands)
    ]


def component(line: BillLine) -> str:
    """Return what a line of a bill is for: `energy, night`."""
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
    """Return the duration in whole minutes, so that a live page is not sent anew every second."""
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
    """Return the time in UTC; the page's script replaces it by the time in the reader's zone."""
    return NO_VALUE if value is None else value.strftime("%d %b %Y %H:%M:%S UTC")


def with_times(sentence: str) -> Markup:
    """Return a sentence with its ISO times as elements, which the page's script shows in the reader's zone."""
    parts = _TIME.split(sentence)
    return Markup("").join(_TIME_ELEMENT.format(p) if _TIME.fullmatch(p) else p for p in parts)


def spaced(word: str | None) -> str:
    """Return OCPP's words with spaces: `SuspendedEVSE` as `Suspended EVSE`."""
    if not word:
        return "Unknown"
    return _WORDS.sub(" ", word)


def charger_url(charger_id: str) -> str:
    return f"/chargers/{quote(charger_id, safe='')}"


def dom_id(charger_id: str) -> str:
    """Return a digest of the identity that is valid in an `id` attribute."""
    return hashlib.blake2b(charger_id.encode(errors="replace"), digest_size=6).hexdigest()


def pretty_json(text: str) -> str:
    """Return JSON with indentation, other text as it is."""
    try:
        return json.dumps(read_json(text.encode()), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def event_line(event: Event) -> str:
    """Return the content of a business event in one line."""
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
        case "session_cost" | "cost_held":
            parts.append(f"{payload.get('estimatedCost')} {payload.get('currency')}")
            parts += ["void"] if payload.get("void") else []
            parts += [explained(word) for word in payload.get("heldBecause", ())]
    return " · ".join(parts)


def repair_draft(held: Any) -> str:
    """Return a quarantined message as JSON to edit, its secrets masked; `{}` where it cannot be read."""
    shown = masked(repairable_message(held.action, held.payload) or {})
    return json.dumps(shown, indent=2, ensure_ascii=False)


FILTERS = {
    each.__name__: each
    for each in (
        kwh,
        kw,
        money,
        minor_money,
        prices,
        base_prices,
        band_prices,
        component,
        duration,
        utc_time,
        spaced,
        charger_url,
        account_url,
        dom_id,
        repair_draft,
        pretty_json,
        event_line,
        explained,
        with_times,
    )
}
