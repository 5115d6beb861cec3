"""The price of usage: computed with exact fractions, returned in whole minor units of the currency.

Money is rounded once: the total, half up, to the minor unit. The tax in it (half up) and the components of the rest
(by largest remainder) divide that total, so the components of a cost always add up to it (docs/decisions/0008).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from csms.core.currencies import minor_digits
from csms.core.exact import Fraction
from csms.core.tariffs import NO_BAND, Tariff
from csms.core.usage import SessionTimeline, Usage, usage_by_band, usage_without_bands

Component = Literal["energy", "time", "session", "idle", "minimum", "maximum", "tax"]
QuantityUnit = Literal["kWh", "min"]
_US_A_MIN = 60_000_000
_RATE_DIGITS = Decimal("0.000001")
_HUNDREDTH = Decimal("0.01")


class BillLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One component of a cost.

    `quantity`, in kWh or minutes, is rounded for display; the amount is computed from the exact quantity. The
    quantities of energy add up to the session's energy. The component `minimum` is what the sum was short of the
    tariff's minimum, `maximum` (negative) what it exceeded the maximum by.
    """

    component: Component
    band: str | None = None
    quantity: Decimal | None = None
    unit: QuantityUnit | None = None
    rate: Decimal | None = None
    amount_minor: int


class BillTax(Struct, frozen=True, kw_only=True):
    """The tax in a total. `included`: the rates contain it, so the bill has no line for it."""

    percent: Decimal
    included: bool
    amount_minor: int
    net_minor: int


class Bill(Struct, frozen=True, kw_only=True):
    """The components of a cost; the lines add up to it."""

    lines: tuple[BillLine, ...] = ()
    tax: BillTax | None = None


class Cost(Struct, frozen=True, kw_only=True):
    """A total. `amount` in the currency's major unit, `amount_minor` the same in minor units.

    `energy_rate`, `time_rate`: the tariff's, or the average price of a kWh and a minute where bands differed.
    """

    amount: Decimal
    amount_minor: int
    currency: str
    bill: Bill = Bill()
    energy_rate: Decimal = Decimal(0)
    time_rate: Decimal = Decimal(0)


def session_cost(
    tariff: Tariff, energy_wh: int, duration_s: Decimal, timeline: SessionTimeline | None = None
) -> Cost:
    """Return the cost of a session. Negative energy or time counts as zero.

    `timeline` is used by a tariff that `needs_timeline`; without one all usage counts as outside of the bands.
    """
    if timeline is not None and tariff.needs_timeline:
        return price_usage(tariff, usage_by_band(tariff, timeline))
    return price_usage(tariff, usage_without_bands(energy_wh, duration_s))


def price_usage(tariff: Tariff, usage: Usage) -> Cost:
    """Return the cost of usage under a tariff."""
    exact = list(_components(tariff, usage))
    charged = sum((amount for _, amount in exact), Fraction(0))
    has_minimum = tariff.minimum_without_energy or sum(usage.energy_wh.values()) > 0
    if tariff.minimum is not None and has_minimum and charged < Fraction(tariff.minimum):
        exact.append((BillLine(component="minimum", amount_minor=0), Fraction(tariff.minimum) - charged))
        charged = Fraction(tariff.minimum)
    if tariff.maximum is not None and charged > Fraction(tariff.maximum):
        exact.append((BillLine(component="maximum", amount_minor=0), Fraction(tariff.maximum) - charged))
        charged = Fraction(tariff.maximum)
    percent = Fraction(tariff.tax_percent or 0)
    tax_added = not tariff.tax_included
    total = round_to_minor(charged * (100 + percent) / 100 if tax_added else charged, tariff.currency)
    tax_minor = _half_up(total.amount_minor * percent / (100 + percent))
    net_minor = total.amount_minor - tax_minor
    exact_minor = [amount * 10 ** minor_digits(tariff.currency) for _, amount in exact]
    shares = _shares(exact_minor, net_minor if tax_added else total.amount_minor)
    lines = [replace(line, amount_minor=share) for (line, _), share in zip(exact, shares, strict=True)]
    tax = None
    if tariff.tax_percent is not None:
        tax = BillTax(
            percent=tariff.tax_percent,
            included=tariff.tax_included,
            amount_minor=tax_minor,
            net_minor=net_minor,
        )
        if tax_added:
            lines.append(BillLine(component="tax", rate=tariff.tax_percent, amount_minor=tax_minor))
    return replace(
        total,
        bill=Bill(lines=tuple(lines), tax=tax),
        energy_rate=_average(tariff, "energy", usage.energy_wh, 1000),
        time_rate=_average(tariff, "time", usage.time_us, _US_A_MIN),
    )


def round_to_minor(exact: Decimal | Fraction, currency: str) -> Cost:
    """Round an exact amount half up to the currency's minor unit: the only place where money is rounded."""
    digits = minor_digits(currency)
    minor = _half_up(Fraction(exact) * 10**digits)
    return Cost(amount=Decimal(minor).scaleb(-digits), amount_minor=minor, currency=currency)


def duration_s(started_at: datetime, stopped_at: datetime) -> Decimal:
    """Return the seconds between two times, exact to the microsecond, never negative."""
    delta = stopped_at - started_at
    micros = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    return Decimal(max(micros, 0)) / 1_000_000


def _components(tariff: Tariff, usage: Usage) -> Iterator[tuple[BillLine, Fraction]]:
    """Yield energy, time, session fee and idle time, by band, with their exact amounts in the major unit."""
    if tariff.charges("energy"):
        bands = sorted(usage.energy_wh)
        whole_wh = _shares([usage.energy_wh[band] for band in bands], int(sum(usage.energy_wh.values())))
        for band, energy_wh in zip(bands, whole_wh, strict=True):
            if usage.energy_wh[band]:
                rate = tariff.rate("energy", band)
                quantity = Decimal(energy_wh) / 1000
                amount = usage.energy_wh[band] * Fraction(rate) / 1000
                yield _line(tariff, "energy", band, quantity, "kWh", rate), amount
    if tariff.charges("time"):
        yield from _minutes(tariff, "time", usage.time_us)
    if tariff.session_fee:
        yield BillLine(component="session", amount_minor=0), Fraction(tariff.session_fee)
    if tariff.charges("idle"):
        yield from _minutes(tariff, "idle", usage.idle_us)


def _minutes(
    tariff: Tariff, component: Literal["time", "idle"], micros: dict[int, int]
) -> Iterator[tuple[BillLine, Fraction]]:
    for band in sorted(micros):
        if micros[band]:
            rate = tariff.rate(component, band)
            quantity = (Decimal(micros[band]) / _US_A_MIN).quantize(_HUNDREDTH, ROUND_HALF_UP)
            amount = Fraction(micros[band], _US_A_MIN) * Fraction(rate)
            yield _line(tariff, component, band, quantity, "min", rate), amount


def _line(
    tariff: Tariff, component: Component, band: int, quantity: Decimal, unit: QuantityUnit, rate: Decimal
) -> BillLine:
    name = tariff.bands[band].name if band != NO_BAND else None
    return BillLine(component=component, band=name, quantity=quantity, unit=unit, rate=rate, amount_minor=0)


def _average(
    tariff: Tariff, component: str, quantities: dict[int, Fraction] | dict[int, int], unit: int
) -> Decimal:
    rates = {tariff.rate(component, band) for band, quantity in quantities.items() if quantity}
    if len(rates) == 1:
        return rates.pop()
    if not rates:
        return tariff.rate(component, NO_BAND)
    amount = sum(Fraction(tariff.rate(component, band)) * quantity for band, quantity in quantities.items())
    mean = Fraction(amount) / sum(quantities.values())
    return (Decimal(_half_up(mean * 10**6)) * _RATE_DIGITS).normalize()


def _shares(exact: Sequence[Fraction], whole: int) -> list[int]:
    """Divide `whole` into integers in proportion to `exact` (largest remainder method)."""
    total = sum(exact, Fraction(0))
    scaled = [amount * whole / total for amount in exact] if total else list(exact)
    shares = [amount.__floor__() for amount in scaled]
    order = sorted(range(len(exact)), key=lambda i: shares[i] - scaled[i])
    for i in order[: whole - sum(shares)]:
        shares[i] += 1
    return shares


def _half_up(exact: Fraction) -> int:
    """Round to the nearest integer, and a half away from zero."""
    doubled = 2 * abs(exact)
    magnitude = (doubled.__floor__() + 1) // 2
    return magnitude if exact >= 0 else -magnitude
