"""The configuration that the Charge Amps adapter is built with, as plain values."""

from datetime import tzinfo
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from bridges.charge_amps.weekly_schedule import WeekEncoding
from csms.plans.sources import PriceInput
from csms.scheduling.feeds import Markup, PriceUnit

OperationMode = Literal["standalone", "hems"]


class ChargeAmpsIntervals(Struct, frozen=True, kw_only=True):
    """Intervals in seconds.

    `settle_s`: how long the end of a session waits for the history. `gone_after`: failed polls until a charger is
    unreachable.
    """

    poll_s: float = 30.0
    settle_s: float = 120.0
    heartbeat_s: float = 60.0
    tend_s: float = 10.0
    read_back_s: float = 900.0
    retry_s: tuple[float, ...] = (5.0, 15.0, 60.0)
    backoff_s: tuple[float, float] = (2.0, 60.0)
    refresh_s: float = 3600.0
    gone_after: int = 3
    prices_s: float = 420.0


class ChargeAmpsConfig(Struct, frozen=True, kw_only=True):
    """See docs/bridges/charge-amps.md. `charge_points` empty: all of the account. `primary` None: the first."""

    zone: tzinfo
    time_zone: str
    charge_points: tuple[str, ...] = ()
    connectors: tuple[int, ...] = (1,)
    primary: str | None = None
    mode: OperationMode = "standalone"
    automation: bool = True
    price_threshold: Decimal | None = Decimal("0.25")
    top_x: int = 16
    current_a: float = 16.0
    currency: str = "EUR"
    price_topic: str | None = "energy_prices/sensor/price_import/attributes"
    price_url: str | None = None
    price_token: str | None = None
    price_unit: PriceUnit = "auto"
    price_area: str | None = None
    markup: Markup = Markup()
    take_over: bool = False
    mode_after_clear: Literal["on", "off", "keep"] = "on"
    encoding: WeekEncoding = "elapsed"
    rfid: str | None = None
    backfill_days: int = 7
    discovery: str | None = "homeassistant"
    intervals: ChargeAmpsIntervals = ChargeAmpsIntervals()

    @property
    def prices(self) -> PriceInput:
        return PriceInput(
            zone=self.zone,
            topic=self.price_topic,
            url=self.price_url,
            token=self.price_token,
            unit=self.price_unit,
            area=self.price_area,
            markup=self.markup,
            due_s=self.intervals.prices_s,
        )
