from decimal import Decimal

import msgspec
import pytest

from csms.core.currencies import CURRENCIES
from csms.core.tariffs import Band, Tariff, TariffProblem, tariff_problems, weekly_bands

NIGHT = Band(name="night", start="22:00", end="06:00", energy_rate=Decimal("0.20"))


def tariff(*bands, **given):
    return Tariff(**({"currency": "EUR", "bands": bands} | given))


def test_tariffs_without_and_with_all_terms_are_valid():
    assert tariff_problems(Tariff()) == []
    weekend = Band(name="weekend", days=("sat", "sun"), start="06:00", end="22:00")
    full = tariff(
        NIGHT, weekend, time_zone="Europe/Vienna", minimum=Decimal(1), maximum=Decimal(1), idle_grace_min=30
    )
    assert tariff_problems(full) == []


@pytest.mark.parametrize(
    ("terms", "pointer", "words"),
    [
        (tariff(currency="ABC"), "/currency", "'ABC' is not a currency of ISO 4217"),
        (tariff(currency="eur"), "/currency", "'eur'"),
        (tariff(time_zone="Europe/Wien"), "/timeZone", "'Europe/Wien' is not an IANA time zone"),
        (tariff(minimum=Decimal(5), maximum=Decimal(4)), "/maximum", "the maximum 4 is below the minimum 5"),
        (tariff(Band(name="a", start="24:00")), "/bands/0/start", "'24:00' is not a time of day"),
        (tariff(Band(name="a", start="7:00")), "/bands/0/start", "'7:00'"),
        (tariff(Band(name="a", end="24:01")), "/bands/0/end", "'24:01'"),
        (tariff(Band(name="a", end="23:60")), "/bands/0/end", "'23:60'"),
        (tariff(Band(name="a", end="12:00\n")), "/bands/0/end", "is not a time of day"),
        (tariff(Band(name="a", start="06:00", end="06:00")), "/bands/0/end", "begins and ends at 06:00"),
        (tariff(Band(name="a", days=("mo",))), "/bands/0/days", "'mo' is not a day: mon, tue"),
        (tariff(Band(name="a", days=())), "/bands/0/days", "at least one day"),
        (
            tariff(NIGHT, msgspec.structs.replace(NIGHT, days=("mon",))),
            "/bands/1/name",
            "named 'night' already",
        ),
        (tariff(*[Band(name=str(i)) for i in range(169)]), "/bands", "at most 168"),
    ],
)
def test_an_invalid_term_is_named_with_its_pointer(terms, pointer, words):
    found = tariff_problems(terms)
    assert [fault.pointer for fault in found][:1] == [pointer]
    assert words in found[0].detail


@pytest.mark.parametrize(
    ("other", "overlap"),
    [
        (Band(name="x", start="21:00", end="22:01"), "on mon from 22:00 to 22:01"),
        (Band(name="x", start="05:59", end="12:00", days=("wed",)), "on wed from 05:59 to 06:00"),
        (Band(name="x", days=("sun",)), "on sun from 00:00 to 06:00"),
        (Band(name="x", start="23:00", end="01:00", days=("fri",)), "on fri from 23:00 to 24:00"),
        (Band(name="x", start="22:00", end="06:00", days=("tue",)), "on tue from 22:00 to 24:00"),
    ],
)
def test_bands_that_overlap_are_named_with_the_time(other, overlap):
    assert tariff_problems(tariff(NIGHT, other)) == [
        TariffProblem("/bands/1", f"band 1 ('x') overlaps band 0 ('night') {overlap}")
    ]


def test_bands_may_touch_at_their_boundaries_and_at_midnight():
    day = Band(name="day", start="06:00", end="22:00")
    assert tariff_problems(tariff(NIGHT, day)) == []
    friday = Band(name="friday night", days=("fri",), start="20:00", end="24:00")
    saturday = Band(name="saturday", days=("sat",))
    assert tariff_problems(tariff(friday, saturday)) == []


def test_a_band_past_midnight_belongs_to_the_day_on_which_it_begins():
    sunday_night = weekly_bands((msgspec.structs.replace(NIGHT, days=("sun",)),))
    assert sunday_night[6] == ((22 * 60, 24 * 60, 0),)
    assert sunday_night[0] == ((0, 6 * 60, 0),)
    assert sunday_night[1:6] == ((),) * 5
    to_midnight = weekly_bands((Band(name="a", days=("sun",), start="22:00", end="00:00"),))
    assert (to_midnight[6], to_midnight[0]) == (((22 * 60, 24 * 60, 0),), ())


@pytest.mark.parametrize(
    ("terms", "model"),
    [
        (tariff(NIGHT), "energy_based"),
        (tariff(Band(name="a", time_rate=Decimal(1))), "time_based"),
        (tariff(NIGHT, time_rate=Decimal("0.1")), "energy_and_time"),
        (tariff(session_fee=Decimal(1)), "flat"),
        (tariff(session_fee=Decimal(1), idle_rate=Decimal(1)), "flat"),
    ],
)
def test_bands_count_for_the_pricing_model(terms, model):
    assert terms.pricing_model == model


def test_only_bands_and_idle_rates_need_a_timeline():
    assert not Tariff(minimum=Decimal(1), maximum=Decimal(2), tax_percent=Decimal(20)).needs_timeline
    assert tariff(NIGHT).needs_timeline
    assert Tariff(idle_rate=Decimal(1)).needs_timeline


def test_tariffs_of_older_releases_are_decoded():
    old = {
        "id": "t",
        "version": 3,
        "currency": "EUR",
        "energy_rate": "0.5",
        "time_rate": "0",
        "session_fee": "1",
    }
    assert msgspec.convert(old, Tariff) == Tariff(
        id="t", version=3, currency="EUR", energy_rate=Decimal("0.5"), session_fee=Decimal(1)
    )
    full = tariff(NIGHT, time_zone="Europe/Vienna", tax_percent=Decimal("8.1"), maximum=Decimal("9.99"))
    assert msgspec.json.decode(msgspec.json.encode(full), type=Tariff) == full


def test_a_time_zone_is_kept_only_with_bands():
    assert tariff(NIGHT).with_time_zone("Europe/Vienna").time_zone == "Europe/Vienna"
    assert tariff(NIGHT, time_zone="Asia/Tokyo").with_time_zone("Europe/Vienna").time_zone == "Asia/Tokyo"
    assert Tariff().with_time_zone("Europe/Vienna") == Tariff()


def test_currencies_are_those_of_iso_4217():
    assert {"USD", "EUR", "UAH", "JPY", "KWD"} <= CURRENCIES
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)
    assert not {"ABC", "XXX", "XTS", "XAU", "DEM", ""} & CURRENCIES
