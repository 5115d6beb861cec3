from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.core.currencies import minor_digits
from csms.core.pricing import duration_s, rounded, session_cost
from csms.core.tariffs import Tariff
from tests.core.desk import NOW


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
        (tariff("0.5"), 10, 0, "0.01", 1),  # half a cent goes up
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
def test_the_customers_word_for_a_tariff(terms, model):
    assert terms.pricing_model == model


@pytest.mark.parametrize(("currency", "digits"), [("USD", 2), ("EUR", 2), ("UAH", 2), ("JPY", 0), ("KWD", 3)])
def test_minor_units_of_iso_4217(currency, digits):
    assert minor_digits(currency) == digits


def test_a_discount_below_zero_is_rounded_away_from_zero():
    assert rounded(Decimal("-0.005"), "USD").amount_minor == -1


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
