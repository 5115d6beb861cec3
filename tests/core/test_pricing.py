from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from csms.core.currencies import minor_digits
from csms.core.pricing import duration_s, round_to_minor, session_cost
from csms.core.tariffs import Band, Tariff
from csms.core.usage import Evidence, SessionTimeline
from tests.harness.fake_store import NOW
from tests.harness.narrowing import present


def tariff(energy="0", time="0", fee="0", currency="USD"):
    return Tariff(
        energy_rate=Decimal(energy), time_rate=Decimal(time), session_fee=Decimal(fee), currency=currency
    )


@pytest.mark.parametrize(
    ("terms", "energy_wh", "seconds", "amount", "minor"),
    [
        (tariff("0.12"), 24_000, 5400, "2.88", 288),
        (tariff("0.12"), 0, 0, "0.00", 0),
        (tariff("0.12", "0.01"), 24_000, 5400, "3.78", 378),
        (tariff("0.12", currency="JPY"), 3, 10, "0", 0),
        (tariff("0.12", currency="KWD"), 24_001, 0, "2.880", 2880),
        (tariff(fee="1.5"), 24_000, 5400, "1.50", 150),
        (tariff("0.5"), 10, 0, "0.01", 1),  # half a cent is rounded up
        (tariff(time="0.0375"), 0, 8, "0.01", 1),  # 8/60 has no exact decimal, the price has: half a cent
        (tariff(time="0.03"), 0, 110, "0.06", 6),
        (tariff(time="0.3"), 0, 1, "0.01", 1),
        (tariff("0.12", "1"), -5, -5, "0.00", 0),
    ],
)
def test_cost(terms, energy_wh, seconds, amount, minor):
    cost = session_cost(terms, energy_wh, Decimal(seconds))
    assert (str(cost.amount), cost.amount_minor, cost.currency) == (amount, minor, terms.currency)


@pytest.mark.parametrize(
    ("terms", "model"),
    [
        (tariff("0.12"), "energy_based"),
        (tariff("0.12", fee="1"), "energy_based"),
        (tariff(time="0.1"), "time_based"),
        (tariff("0.12", "0.1"), "energy_and_time"),
        (tariff(fee="2"), "flat"),
        (tariff(), "energy_based"),
    ],
)
def test_a_tariff_has_the_customers_pricing_model(terms, model):
    assert terms.pricing_model == model


@pytest.mark.parametrize(("currency", "digits"), [("USD", 2), ("EUR", 2), ("UAH", 2), ("JPY", 0), ("KWD", 3)])
def test_minor_units_of_iso_4217(currency, digits):
    assert minor_digits(currency) == digits


def test_a_discount_below_zero_is_rounded_away_from_zero():
    assert round_to_minor(Decimal("-0.005"), "USD").amount_minor == -1


def test_duration_is_exact_to_the_microsecond_and_never_negative():
    assert duration_s(NOW, NOW + timedelta(days=1, microseconds=1)) == Decimal("86400.000001")
    assert duration_s(NOW, NOW - timedelta(seconds=1)) == 0
    assert duration_s(NOW, NOW) == 0
    assert duration_s(datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)) > 2 * 10**11


@given(
    energy_wh=st.integers(0, 10**9),
    seconds=st.integers(0, 30 * 86_400),
    energy_rate=st.decimals(0, 10, places=4),
    time_rate=st.decimals(0, 10, places=4),
)
def test_money_is_within_half_a_cent_of_the_exact_price(energy_wh, seconds, energy_rate, time_rate):
    cost = session_cost(Tariff(energy_rate=energy_rate, time_rate=time_rate), energy_wh, Decimal(seconds))
    # In integers: the price in 1/60,000 of 1/10,000 of a unit.
    exact = energy_wh * int(energy_rate * 10_000) * 60 + seconds * int(time_rate * 10_000) * 1000
    doubled_error = 2 * (cost.amount_minor * 100 * 60_000 - exact)
    assert -100 * 60_000 < doubled_error <= 100 * 60_000
    assert cost.amount * 100 == cost.amount_minor


# --- components ------------------------------------------------------------------------------------------

NIGHT = Tariff(
    currency="EUR",
    energy_rate=Decimal("0.40"),
    time_rate=Decimal("0.01"),
    session_fee=Decimal("0.50"),
    idle_rate=Decimal("0.10"),
    idle_grace_min=30,
    bands=(
        Band(name="night", start="22:00", end="06:00", energy_rate=Decimal("0.20"), idle_rate=Decimal(0)),
        Band(name="morning", days=("sat",), start="06:00", end="08:00", time_rate=Decimal("0.02")),
    ),
    time_zone="Europe/Vienna",
)
EVENING = datetime(2026, 11, 20, 17, tzinfo=UTC)  # a Friday, 18:00 in Vienna


def with_terms(**given):
    return replace(NIGHT, **given)


def timeline(hours, energy_wh, registers=()):
    return SessionTimeline(
        started_at=EVENING,
        ended_at=EVENING + timedelta(hours=hours),
        energy_wh=energy_wh,
        evidence=Evidence(registers=tuple((EVENING + timedelta(hours=h), wh) for h, wh in registers)),
    )


def cost_of(tariff, hours, energy_wh, registers=()):
    return session_cost(tariff, energy_wh, Decimal(hours * 3600), timeline(hours, energy_wh, registers))


def lines(cost):
    return [
        (line.component, line.band, None if line.quantity is None else str(line.quantity), line.amount_minor)
        for line in cost.bill.lines
    ]


def test_a_night_is_billed_by_component_and_band():
    registers = [(1, 8000), (2, 8000), (4, 8000), (5, 20_000), (12, 20_000), (13, 24_000)]
    cost = cost_of(NIGHT, 15, 24_000, registers)
    assert lines(cost) == [
        ("energy", None, "8", 320),
        ("energy", "night", "12", 240),
        ("energy", "morning", "4", 160),  # at the tariff's own rate
        ("time", None, "300.00", 300),
        ("time", "night", "480.00", 480),
        ("time", "morning", "120.00", 240),
        ("session", None, None, 50),
        ("idle", None, "60.00", 600),
        ("idle", "morning", "30.00", 300),
    ]
    assert (cost.amount_minor, cost.amount) == (2690, Decimal("26.90"))
    # 24 kWh cost 7.20, 900 minutes 10.20.
    assert (cost.energy_rate, cost.time_rate) == (Decimal("0.3"), Decimal("0.011333"))


def test_a_tariff_without_bands_is_billed_by_component():
    cost = session_cost(tariff("0.12", "0.01", "0.50"), 24_000, Decimal(5400))
    assert lines(cost) == [
        ("energy", None, "24", 288),
        ("time", None, "90.00", 90),
        ("session", None, None, 50),
    ]
    assert (cost.energy_rate, cost.time_rate) == (Decimal("0.12"), Decimal("0.01"))
    assert cost.bill.tax is None


def test_what_is_not_charged_has_no_line():
    assert lines(session_cost(tariff("0.12"), 0, Decimal(60))) == []
    assert lines(session_cost(Tariff(), 24_000, Decimal(60))) == []


def test_a_free_band_has_a_line_where_others_cost():
    free_night = with_terms(
        time_rate=Decimal(0),
        session_fee=Decimal(0),
        idle_rate=Decimal(0),
        bands=(Band(name="night", start="22:00", end="06:00", energy_rate=Decimal(0)),),
    )
    cost = cost_of(free_night, 8, 8000)
    assert lines(cost) == [("energy", None, "4", 160), ("energy", "night", "4", 0)]
    assert cost.energy_rate == Decimal("0.2")


def test_the_quantities_of_energy_add_up_to_the_session():
    three = with_terms(bands=(*NIGHT.bands, Band(name="evening", start="21:00", end="22:00")))
    cost = cost_of(three, 6, 100)
    assert sum(line.quantity for line in cost.bill.lines if line.component == "energy") == Decimal("0.1")


@pytest.mark.parametrize(
    ("terms", "minor", "expected"),
    [
        ({"minimum": Decimal(3)}, 300, [("energy", 288), ("minimum", 12)]),
        ({"minimum": Decimal("2.88")}, 288, [("energy", 288)]),
        ({"maximum": Decimal(2)}, 200, [("energy", 288), ("maximum", -88)]),
        ({"maximum": Decimal(0)}, 0, [("energy", 288), ("maximum", -288)]),
        ({"minimum": Decimal(5), "maximum": Decimal(5)}, 500, [("energy", 288), ("minimum", 212)]),
        ({"tax_percent": Decimal(20)}, 288, [("energy", 288)]),
        ({"tax_percent": Decimal(20), "tax_included": False}, 346, [("energy", 288), ("tax", 58)]),
        ({"tax_percent": Decimal(0), "tax_included": False}, 288, [("energy", 288), ("tax", 0)]),
        (
            {"tax_percent": Decimal("8.1"), "tax_included": False, "minimum": Decimal(10)},
            1081,
            [("energy", 288), ("minimum", 712), ("tax", 81)],
        ),
    ],
)
def test_minimum_maximum_and_tax(terms, minor, expected):
    cost = session_cost(replace(tariff("0.12"), **terms), 24_000, Decimal(5400))
    assert cost.amount_minor == minor
    assert [(line.component, line.amount_minor) for line in cost.bill.lines] == expected


@pytest.mark.parametrize(("included", "amounts"), [(True, (288, 48, 240)), (False, (346, 58, 288))])
def test_the_tax_in_a_total(included, amounts):
    terms = replace(tariff("0.12"), tax_percent=Decimal(20), tax_included=included)
    cost = session_cost(terms, 24_000, Decimal(0))
    tax = present(cost.bill.tax)
    assert (cost.amount_minor, tax.amount_minor, tax.net_minor) == amounts
    assert (tax.percent, tax.included) == (20, included)


def test_thirds_of_a_minute_in_two_bands_still_make_a_half_cent():
    # 10 s + 20 s at 0.01 a minute are half a cent; with decimals cut off in each band they would be less.
    terms = Tariff(
        time_rate=Decimal("0.01"),
        bands=(Band(name="b", start="18:00", time_rate=Decimal("0.01")),),
        time_zone="Europe/Vienna",
    )
    start = EVENING - timedelta(seconds=10)
    there = SessionTimeline(started_at=start, ended_at=start + timedelta(seconds=30), energy_wh=0)
    assert session_cost(terms, 0, Decimal(30), there).amount_minor == 1


TERMS = st.fixed_dictionaries(
    {
        "currency": st.sampled_from(["USD", "JPY", "KWD"]),
        "energy_rate": st.decimals(0, 2, places=4),
        "time_rate": st.decimals(0, 1, places=4),
        "session_fee": st.decimals(0, 5, places=3),
        "minimum": st.none() | st.decimals(0, 10, places=2),
        "maximum": st.none() | st.decimals(10, 30, places=2),
        "tax_percent": st.none() | st.decimals(0, 40, places=1),
        "tax_included": st.booleans(),
    }
)
REGISTERS = st.lists(st.tuples(st.floats(0, 24), st.integers(0, 60_000)), max_size=8)


@given(terms=TERMS, hours=st.integers(0, 24), energy_wh=st.integers(0, 60_000), registers=REGISTERS)
def test_components_always_add_up_to_the_total(terms, hours, energy_wh, registers):
    cost = cost_of(with_terms(**terms), hours, energy_wh, registers)
    assert sum(line.amount_minor for line in cost.bill.lines) == cost.amount_minor
    assert cost.amount_minor >= 0
    tax = cost.bill.tax
    if tax is not None:
        assert tax.amount_minor + tax.net_minor == cost.amount_minor
        assert tax.amount_minor >= 0
    for line in cost.bill.lines:
        assert line.amount_minor >= 0 or line.component == "maximum"


@given(terms=TERMS, hours=st.integers(1, 24), energy_wh=st.integers(0, 60_000), more_wh=st.integers(0, 1000))
def test_more_energy_never_costs_less(terms, hours, energy_wh, more_wh):
    terms = with_terms(**terms)
    less, more = (cost_of(terms, hours, wh).amount_minor for wh in (energy_wh, energy_wh + more_wh))
    assert less <= more


@given(
    terms=TERMS,
    hours=st.integers(1, 24),
    energy_wh=st.integers(0, 60_000),
    registers=REGISTERS,
    longer_hours=st.integers(0, 24),
)
def test_staying_longer_never_costs_less(terms, hours, energy_wh, registers, longer_hours):
    registers = [*((h, wh) for h, wh in registers if h < hours), (hours, energy_wh)]
    terms = with_terms(**terms)
    shorter, longer = (cost_of(terms, h, energy_wh, registers) for h in (hours, hours + longer_hours))
    assert shorter.amount_minor <= longer.amount_minor


@given(terms=TERMS, hours=st.integers(0, 24), energy_wh=st.integers(0, 60_000))
def test_bands_with_the_base_rates_cost_the_same_as_none(terms, hours, energy_wh):
    terms = with_terms(**terms, idle_rate=Decimal(0))
    plain = replace(terms, bands=())
    banded = replace(terms, bands=(Band(name="x", start="20:00", end="07:00"),))
    costs = [cost_of(t, hours, energy_wh) for t in (plain, banded)]
    assert costs[0].amount_minor == costs[1].amount_minor
    assert costs[0].energy_rate == costs[1].energy_rate


@pytest.mark.parametrize(
    ("terms", "energy_wh", "minor"),
    [
        ({}, 0, 0),
        ({}, -5, 0),
        ({}, 1, 300),
        ({"minimum_without_energy": True}, 0, 300),
        ({"session_fee": Decimal(1)}, 0, 100),
        ({"session_fee": Decimal(1), "minimum_without_energy": True}, 0, 300),
    ],
)
def test_the_minimum_of_a_session_without_energy_is_an_option(terms, energy_wh, minor):
    tariff = Tariff(energy_rate=Decimal("0.12"), minimum=Decimal(3), **terms)
    cost = session_cost(tariff, energy_wh, Decimal(600))
    assert cost.amount_minor == minor
    assert sum(line.amount_minor for line in cost.bill.lines) == minor
