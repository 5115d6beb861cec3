"""Price feeds, decoded into price slots. A malformed entry is left out and counted, never taken for free energy.

JSON: the `price_curve` of the energy-prices add-on; Nord Pool's data portal (`multiAreaEntries`); the custom Nord Pool
sensor (`raw_today`, `raw_tomorrow`); Home Assistant's action `nordpool.get_prices_for_date` (`{"NL": [...]}`) and its
REST states (`{"attributes": {...}}`); plain lists of `{start|startsAt|time, end?, price|value|total}`.
XML: ENTSO-E's day-ahead publication (A44).
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, Literal
from xml.etree.ElementTree import Element

from msgspec import Struct

from csms.outside import UnusableDocument, read_json, read_xml
from csms.scheduling.periods import as_utc
from csms.scheduling.prices import PriceSlot, parse_price, price_level, sort_slots

PriceUnit = Literal["auto", "kWh", "MWh", "cent/kWh"]
_PER_KWH: Final[dict[str, Decimal]] = {
    "kWh": Decimal(1),
    "MWh": Decimal("0.001"),
    "cent/kWh": Decimal("0.01"),
}
_STARTS, _ENDS = ("start", "startsAt", "deliveryStart", "time"), ("end", "endsAt", "deliveryEnd")
_PRICES = ("price", "value", "total", "import_price")
_LISTS = ("price_curve", "raw_today", "raw_tomorrow", "today", "tomorrow", "prices")
_LONGEST_SLOT = timedelta(hours=1)
_LONGEST_POSITION = 5  # digits
_MAX_BYTES = 4_000_000


class FeedError(ValueError):
    """A document that is not a known price feed."""


class Markup(Struct, frozen=True, kw_only=True):
    """From an exchange's price to that of a consumer: price × `factor` + `add` per kWh (VAT; energy tax, supplier)."""

    factor: Decimal = Decimal(1)
    add: Decimal = Decimal(0)

    def on(self, price: Decimal) -> Decimal:
        """Return the consumer's price for an exchange's price, both per kWh."""
        return price if self == Markup() else price_level(price_level(price) * self.factor + self.add)


class Feed(Struct, frozen=True, kw_only=True):
    """Prices per kWh. `currency` None: the feed names none. `skipped`: the number of unusable entries."""

    slots: tuple[PriceSlot, ...]
    currency: str | None = None
    skipped: int = 0


class _RawFeed(Struct, frozen=True):
    entries: list[tuple[Any, Any, Any]]  # start, end or None, price
    unit: str
    currency: str | None = None


def read_feed(
    body: bytes,
    *,
    zone: tzinfo,
    unit: PriceUnit = "auto",
    area: str | None = None,
    markup: Markup | None = None,
) -> Feed:
    """Decode a price feed. Times without an offset are in `zone`. Raises FeedError.

    `unit` auto: the feed's, or that of its known format. `area`: the bidding zone, if the feed has several.
    """
    raw = _xml(body) if body.lstrip()[:1] == b"<" else _json(body, area)
    factor = _PER_KWH[raw.unit if unit == "auto" else unit]
    slots, skipped = _slots(raw.entries, zone)
    priced = tuple(
        PriceSlot(slot.start, slot.end, (markup or Markup()).on(slot.price * factor)) for slot in slots
    )
    kept = sort_slots(priced)
    return Feed(slots=kept, currency=raw.currency, skipped=skipped + len(priced) - len(kept))


def _slots(entries: Iterable[tuple[Any, Any, Any]], zone: tzinfo) -> tuple[list[PriceSlot], int]:
    read: list[tuple[datetime, datetime | None, Decimal | None]] = []
    skipped = 0
    for start_text, end_text, price in entries:
        start, end = _moment(start_text, zone), _moment(end_text, zone)
        if start is None or (end is None and end_text is not None) or (end is not None and end <= start):
            skipped += 1
        else:
            read.append((start, end, parse_price(price)))
    starts = sorted({start for start, _, _ in read})
    following = dict(pairwise(starts))
    usual = min((b - a for a, b in following.items()), default=_LONGEST_SLOT)
    slots = []
    for start, end, price in read:
        if price is None:
            skipped += 1
            continue
        # A slot without an end lasts until the next start, but a gap in the feed has no price.
        ends = end or min(following.get(start, start + usual), start + max(usual, _LONGEST_SLOT))
        slots.append(PriceSlot(start, ends, price))
    return slots, skipped


def _moment(value: Any, zone: tzinfo) -> datetime | None:
    if isinstance(value, datetime):
        return as_utc(value, zone)
    try:
        return as_utc(datetime.fromisoformat(value), zone) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


# --- JSON ------------------------------------------------------------------------------------------------


def _json(body: bytes, area: str | None) -> _RawFeed:
    try:
        document = read_json(body, max_bytes=_MAX_BYTES)
    except UnusableDocument as error:
        raise FeedError(str(error)) from None
    if isinstance(document, dict) and isinstance(document.get("attributes"), dict):
        document = document["attributes"]
    if isinstance(document, list):
        return _RawFeed(list(_plain(document)), "kWh")
    if not isinstance(document, dict):
        raise FeedError("the document is neither an object nor a list")
    for key in ("multiAreaEntries", "multiIndexEntries"):
        if isinstance(document.get(key), list):
            return _RawFeed(list(_portal(document[key], area)), "MWh", _text(document.get("currency")))
    lists = [document[key] for key in _LISTS if isinstance(document.get(key), list)]
    if lists:
        entries = [entry for some in lists for entry in _plain(some)]
        return _RawFeed(entries, _unit(document), _text(document.get("currency")))
    areas = {key: value for key, value in document.items() if isinstance(value, list)}
    chosen = area if area in areas else next(iter(areas)) if len(areas) == 1 else None
    if chosen is None:
        raise FeedError(f"no list of prices is recognised among {', '.join(map(str, document)) or 'nothing'}")
    return _RawFeed(list(_plain(areas[chosen])), "MWh")


def _plain(entries: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    for entry in entries:
        if isinstance(entry, dict):
            yield _first(entry, _STARTS), _first(entry, _ENDS), _first(entry, _PRICES)
        else:
            yield None, None, None


def _portal(entries: list[Any], area: str | None) -> Iterator[tuple[Any, Any, Any]]:
    for entry in entries:
        prices = (
            entry.get("entryPerArea", entry.get("entryPerIndex", {})) if isinstance(entry, dict) else None
        )
        if not isinstance(prices, dict):
            yield None, None, None
            continue
        price = prices.get(area) if area else next(iter(prices.values()), None) if len(prices) == 1 else None
        yield entry.get("deliveryStart"), entry.get("deliveryEnd"), price


def _first(entry: dict[Any, Any], names: tuple[str, ...]) -> Any:
    return next((entry[name] for name in names if entry.get(name) is not None), None)


def _unit(document: dict[Any, Any]) -> str:
    unit = str(document.get("unit", document.get("unit_of_measurement", ""))).lower()
    if document.get("price_in_cents") is True or unit.startswith(("c/", "ct", "cent", "öre", "ore")):
        return "cent/kWh"
    return "MWh" if "mwh" in unit else "kWh"


def _text(value: Any) -> str | None:
    return value.upper() if isinstance(value, str) and value else None


# --- XML -------------------------------------------------------------------------------------------------


def _xml(body: bytes) -> _RawFeed:
    try:
        root = read_xml(body, max_bytes=_MAX_BYTES)
    except UnusableDocument as error:
        raise FeedError(str(error)) from None
    entries: list[tuple[Any, Any, Any]] = []
    currency: str | None = None
    for series in _all(root, "TimeSeries"):
        currency = currency or _text(_inside(series, "currency_Unit.name"))
        for period in _all(series, "Period"):
            entries.extend(_points(period))
    if not entries:
        raise FeedError(_inside(root, "text") or "the XML document has no prices")
    return _RawFeed(entries, "MWh", currency)


def _points(period: Element) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the slots of one period; a missing position repeats the price before it (curve type A03)."""
    minutes = re.fullmatch(r"PT(\d{1,4})M", _inside(period, "resolution") or "")
    start, end = (
        _moment((_inside(period, name) or "").replace("Z", "+00:00"), UTC) for name in ("start", "end")
    )
    if minutes is None or start is None or end is None or int(minutes[1]) == 0:
        return
    step = timedelta(minutes=int(minutes[1]))
    positions = (end - start) // step
    prices: dict[int, str | None] = {}
    for point in _all(period, "Point"):
        position = _inside(point, "position") or ""
        if position.isdecimal() and len(position) <= _LONGEST_POSITION:
            prices[int(position)] = _inside(point, "price.amount")
    price = None
    for number in range(min(positions, 1000)):
        price = prices.get(number + 1, price)
        yield start + number * step, start + (number + 1) * step, price


def _all(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element.iter() if child.tag.rpartition("}")[2] == name)


def _inside(element: Element, name: str) -> str | None:
    found = next(_all(element, name), None)
    return None if found is None or found.text is None else found.text.strip()
