"""Price feeds of every known format, decoded into slots."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from csms.scheduling.feeds import Feed, FeedError, Markup, PriceUnit, read_feed
from csms.scheduling.prices import covers_day

ZONE = ZoneInfo("Europe/Amsterdam")
VAT_AND_TAX = Markup(factor=Decimal("1.21"), add=Decimal("0.13085"))


def read(
    document: object, unit: PriceUnit = "auto", area: str | None = None, markup: Markup | None = None
) -> Feed:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_feed(body, zone=ZONE, unit=unit, area=area, markup=markup)


def prices(feed: Feed) -> list[str]:
    return [f"{slot.price:f}" for slot in feed.slots]


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def test_the_price_curve_of_the_energy_prices_add_on() -> None:
    feed = read(
        {
            "price_curve": [
                {"start": "2025-11-25T00:00:00+00:00", "end": "2025-11-25T00:15:00+00:00", "price": 0.1861},
                {"start": "2025-11-25T00:15:00+00:00", "end": "2025-11-25T00:30:00+00:00", "price": 0.2519},
            ],
            "percentiles": {"p05": 0.1},
            "last_update": "2025-11-25T00:00:00+00:00",
        }
    )
    assert prices(feed) == ["0.1861", "0.2519"]
    assert feed.slots[0].start == utc(2025, 11, 25)


def test_the_same_through_home_assistants_rest_states() -> None:
    curve = [{"start": "2025-11-25T01:00:00+01:00", "end": "2025-11-25T02:00:00+01:00", "price": "0.1"}]
    feed = read({"entity_id": "sensor.x", "state": "0.1", "attributes": {"price_curve": curve}})
    assert (feed.slots[0].start, prices(feed)) == (utc(2025, 11, 25), ["0.1"])


def test_nord_pools_data_portal_has_prices_per_mwh() -> None:
    feed = read(
        {
            "deliveryDateCET": "2026-11-21",
            "currency": "EUR",
            "multiAreaEntries": [
                {
                    "deliveryStart": "2026-11-20T23:00:00Z",
                    "deliveryEnd": "2026-11-20T23:15:00Z",
                    "entryPerArea": {"NL": 45.67, "BE": 50},
                }
            ],
        },
        area="NL",
    )
    assert (prices(feed), feed.currency) == (["0.04567"], "EUR")


def test_the_custom_nord_pool_sensor() -> None:
    entry = {"start": "2026-11-21T00:00:00+01:00", "end": "2026-11-21T01:00:00+01:00", "value": 12.5}
    later = {"start": "2026-11-22T00:00:00+01:00", "end": "2026-11-22T01:00:00+01:00", "value": None}
    document = {
        "raw_today": [entry],
        "raw_tomorrow": [later, entry],
        "tomorrow_valid": True,
        "currency": "EUR",
    }
    assert prices(read({**document, "price_in_cents": True})) == ["0.125"]
    assert prices(read({**document, "unit": "MWh"})) == ["0.0125"]
    feed = read(document)
    assert (prices(feed), feed.skipped) == (["12.5"], 2), "a copy of today is not tomorrow"


def test_home_assistants_action_has_prices_per_mwh() -> None:
    document = {"NL": [{"start": "2026-11-21T00:00:00Z", "end": "2026-11-21T00:15:00Z", "price": -12.34}]}
    assert prices(read(document)) == ["-0.01234"]
    with pytest.raises(FeedError, match="no list of prices"):
        read({**document, "BE": []})


def test_plain_lists_without_ends_last_to_the_next_start_but_not_over_a_gap() -> None:
    feed = read(
        [
            {"startsAt": "2026-11-21T00:00:00+01:00", "total": 0.1},
            {"startsAt": "2026-11-21T00:15:00+01:00", "total": 0.2},
            {"startsAt": "2026-11-21T06:00:00+01:00", "total": 0.3},
        ]
    )
    assert [(slot.end - slot.start) / timedelta(minutes=15) for slot in feed.slots] == [1, 4, 1]


def test_s11_an_unusable_entry_is_left_out_and_never_free() -> None:
    def entry(hour: int, **changes: object) -> dict[str, object]:
        whole = {
            "start": f"2026-11-21T{hour:02}:00:00Z",
            "end": f"2026-11-21T{hour + 1:02}:00:00Z",
            "price": 0.1,
        }
        return {**whole, **changes}

    missing = entry(1)
    del missing["price"]
    feed = read(
        [
            entry(0),
            missing,
            entry(2, price="NaN"),
            entry(3, price="abc"),
            entry(4, end="2026-11-21T03:00:00Z"),
            entry(5, price=True),
            entry(6, price="inf"),
            entry(7, price="1e400"),
            entry(8, start="soon"),
            entry(0, price=0.7),
            "nonsense",
            entry(9, price="0.2"),
        ]
    )
    assert (prices(feed), feed.skipped) == (["0.1", "0.2"], 10)


def entso_e(points: str, resolution: str = "PT15M") -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Publication_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-3:publicationdocument:7:3">
 <TimeSeries><currency_Unit.name>EUR</currency_Unit.name><curveType>A03</curveType>
  <Period><timeInterval><start>2026-11-20T23:00Z</start><end>2026-11-21T23:00Z</end></timeInterval>
  <resolution>{resolution}</resolution>{points}</Period></TimeSeries>
</Publication_MarketDocument>""".encode()


def point(position: int, amount: str) -> str:
    return f"<Point><position>{position}</position><price.amount>{amount}</price.amount></Point>"


def test_entries_of_the_portal_without_prices_are_counted() -> None:
    slot = {"deliveryStart": "2026-11-20T23:00:00Z", "deliveryEnd": "2026-11-20T23:15:00Z"}
    entries = ["nonsense", slot | {"entryPerArea": None}, slot | {"entryPerArea": {"NL": 90}}]
    feed = read({"multiAreaEntries": entries})
    assert (prices(feed), feed.skipped) == (["0.090"], 2)


def test_points_without_a_usable_position_are_ignored() -> None:
    feed = read(entso_e("<Point><position>x</position></Point>" + point(1, "10")))
    assert prices(feed)[:1] == ["0.010"]


def test_entso_e_repeats_a_price_whose_position_is_missing() -> None:
    feed = read(entso_e(point(1, "45.67") + point(4, "100.005") + point(96, "-12.34")))
    assert covers_day(feed.slots, date(2026, 11, 21), ZONE)
    assert prices(feed)[:4] == ["0.04567", "0.04567", "0.04567", "0.100005"]
    assert prices(feed)[94:] == ["0.100005", "-0.01234"]
    assert feed.currency == "EUR"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7",
        b"{",
        b"\xff",
        b'{"a": 1}',
        b"<html",
        b"<html></html>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        entso_e("", "P1Y"),
    ],
)
def test_a_document_that_is_not_a_feed_is_refused(body: bytes) -> None:
    with pytest.raises(FeedError):
        read(body)


@pytest.mark.parametrize(
    ("spot", "expected"), [("45.67", "0.1861"), ("-12.34", "0.1160"), ("100.005", "0.2519")]
)
def test_taxes_and_the_suppliers_share_come_on_top_of_the_exchanges_price(spot: str, expected: str) -> None:
    document = [{"start": "2026-11-21T00:00:00Z", "end": "2026-11-21T00:15:00Z", "price": spot}]
    assert prices(read(document, unit="MWh", markup=VAT_AND_TAX)) == [expected]
