"""Numbers, times and events as the pages show them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from csms.console import formatting
from csms.core.pricing import Cost
from csms.core.tariffs import Band, Tariff

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "< 1 min"), (59, "< 1 min"), (60, "1 min"), (3900, "1 h 05 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: int, text: str):
    assert formatting.duration(Decimal(seconds)) == text


def test_the_time_since_a_moment():
    assert formatting.ago(None, NOW) == "never"
    assert formatting.ago(NOW - timedelta(seconds=80), NOW) == "just now"
    assert formatting.ago(NOW + timedelta(seconds=80), NOW) == "just now"
    assert formatting.ago(NOW - timedelta(minutes=7), NOW) == "7 min ago"


def test_energy_power_and_money():
    assert formatting.kwh(12_345_678) == "12,345.68 kWh"
    assert formatting.kwh(None) == formatting.kw(None) == "\N{EN DASH}"
    assert formatting.kw(7360) == "7.4 kW"
    assert (
        formatting.money(Cost(amount=Decimal("1234.5"), amount_minor=123450, currency="EUR"))
        == "1,234.50 EUR"
    )
    assert formatting.money(Cost(amount=Decimal(1200), amount_minor=1200, currency="JPY")) == "1,200 JPY"


def test_prices():
    tariff = Tariff(currency="EUR", energy_rate=Decimal("0.350"), session_fee=Decimal(10))
    assert formatting.prices(tariff) == "0.35 EUR/kWh + 10 EUR a session"
    assert formatting.prices(Tariff()) == "free"


def test_prices_name_everything_that_determines_them():
    bands = (
        Band(name="night", start="22:00", end="06:00", energy_rate=Decimal("0.20")),
        Band(name="weekend", days=("sat", "sun"), start="06:00", end="22:00", energy_rate=Decimal(0)),
    )
    tariff = Tariff(
        currency="EUR",
        energy_rate=Decimal("0.40"),
        idle_rate=Decimal("0.10"),
        idle_grace_min=30,
        bands=bands,
        maximum=Decimal(50),
        minimum=Decimal("1.50"),
        minimum_without_energy=True,
        tax_percent=Decimal("20.0"),
        tax_included=False,
    )
    assert formatting.prices(tariff) == (
        "0.4 EUR/kWh + 0.1 EUR/idle min, idle after 30 min, 2 bands, at least 1.5 EUR even without energy,"
        " at most 50 EUR, plus 20 % tax"
    )
    assert formatting.band_prices(tariff) == [
        "night, 22:00 to 06:00: 0.2 EUR/kWh + 0.1 EUR/idle min",
        "weekend, Sat Sun 06:00 to 22:00: 0.1 EUR/idle min",
    ]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("SuspendedEVSE", "Suspended EVSE"),
        ("EVDisconnected", "EV Disconnected"),
        ("Available", "Available"),
        (None, "Unknown"),
        ("", "Unknown"),
    ],
)
def test_words_of_ocpp_get_spaces(word: str | None, text: str):
    assert formatting.spaced(word) == text


def test_every_identity_has_an_address_and_an_id():
    assert formatting.charger_url("A/B ?#") == "/chargers/A%2FB%20%3F%23"
    assert formatting.dom_id("A/B") == formatting.dom_id("A/B") != formatting.dom_id("A/C")
    assert formatting.dom_id('"<').isalnum()


def test_json_is_indented_and_other_text_left_as_it_is():
    assert formatting.pretty_json('{"a":1}') == '{\n  "a": 1\n}'
    assert formatting.pretty_json("{a") == "{a"
