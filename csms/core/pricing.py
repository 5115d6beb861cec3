"""Energy and time to money. `Decimal` throughout, rounded once, half up, to the currency's minor unit."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from msgspec import Struct

# ISO 4217 currencies whose minor unit is not 1/100.
_MINOR_DIGITS = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}

ENERGY_BASED, TIME_BASED, ENERGY_AND_TIME, FLAT = "energy_based", "time_based", "energy_and_time", "flat"


class Tariff(Struct, frozen=True, kw_only=True):
    """Prices. A transaction keeps the tariff it started under, so a later change never touches it."""

    id: str = "default"
    version: int = 1
    currency: str = "USD"
    energy_rate: Decimal = Decimal(0)  # per kWh
    time_rate: Decimal = Decimal(0)  # per minute
    session_fee: Decimal = Decimal(0)

    @property
    def pricing_model(self) -> str:
        """The customer's word for it; a free tariff counts as energy based."""
        if self.energy_rate and self.time_rate:
            return ENERGY_AND_TIME
        if self.time_rate:
            return TIME_BASED
        if self.session_fee and not self.energy_rate:
            return FLAT
        return ENERGY_BASED


class Cost(Struct, frozen=True, kw_only=True):
    """`amount` in the currency's major unit, `amount_minor` the same exactly, in minor units."""

    amount: Decimal
    amount_minor: int
    currency: str


def minor_digits(currency: str) -> int:
    """How many decimals the currency's minor unit has (ISO 4217)."""
    return _MINOR_DIGITS.get(currency, 2)


def session_cost(tariff: Tariff, energy_wh: int, duration_s: Decimal) -> Cost:
    """What a session costs: energy x rate + minutes x rate + fee, one rounding at the end.

    `duration_s` in seconds, not rounded minutes. Negative energy or time counts as zero.
    """
    energy_kwh = Decimal(max(energy_wh, 0)) / 1000
    # Divided last: a third of a minute has no exact decimal, its price may have one that wants rounding up.
    time_price = max(duration_s, Decimal(0)) * tariff.time_rate / 60
    exact = energy_kwh * tariff.energy_rate + time_price + tariff.session_fee
    return rounded(exact, tariff.currency)


def rounded(exact: Decimal, currency: str) -> Cost:
    """Half up to the minor unit: the only place where money is rounded."""
    digits = minor_digits(currency)
    minor = int((exact.scaleb(digits)).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    return Cost(amount=Decimal(minor).scaleb(-digits), amount_minor=minor, currency=currency)


def duration_s(started_at: datetime, stopped_at: datetime) -> Decimal:
    """Seconds between two moments, exact to the microsecond, never negative."""
    delta = stopped_at - started_at
    micros = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    return Decimal(max(micros, 0)) / 1_000_000
