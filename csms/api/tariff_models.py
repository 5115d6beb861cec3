"""Tariffs, groups of chargers and prices as they come over REST. Their meaning is checked in core/tariffs."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from csms.api.models import Input, Model, Name, Rate, printable
from csms.api.transaction_models import CostOut, TariffOut
from csms.core.bands import tariff_zone
from csms.core.clocks import LONGEST_SESSION
from csms.core.tariffs import DAYS, MAX_GRACE_MIN, Band, Tariff
from csms.core.usage import Evidence, SessionTimeline

Percent = Annotated[Decimal, Field(ge=0, le=100, decimal_places=4)]


class BandIn(Input):
    """Other rates at some times of the week. A rate that is left out is the tariff's own."""

    name: Annotated[str, Field(max_length=64), AfterValidator(printable)] = Field(
        "", description="Unique within the tariff; when left out: its times"
    )
    days: list[str] = Field(list(DAYS), description="mon to sun: the days it begins on")
    start: str = Field("00:00", description="HH:MM by the clock of the site, inclusive")
    end: str = Field("24:00", description="HH:MM, exclusive; before the start: on the next day")
    energy_rate: Rate | None = None
    time_rate: Rate | None = None
    idle_rate: Rate | None = None

    def band(self) -> Band:
        values = self.model_dump()
        values["name"] = self.name or f"{self.start}-{self.end}"
        values["days"] = tuple(self.days)
        return Band(**values)


class TariffTerms(Input):
    currency: str = Field("USD", description="ISO 4217")
    energy_rate: Rate = Field(Decimal(0), description="Per kWh")
    time_rate: Rate = Field(Decimal(0), description="Per minute")
    session_fee: Rate = Decimal(0)
    idle_rate: Rate = Field(
        Decimal(0), description="Per minute in which the car blocks the connector after charging has ended"
    )
    idle_grace_min: int = Field(0, ge=0, le=MAX_GRACE_MIN)
    bands: list[BandIn] = Field([])
    time_zone: str | None = Field(None, description="IANA; null: the charger's, or CSMS_TIME_ZONE")
    minimum: Rate | None = None
    maximum: Rate | None = None
    minimum_without_energy: bool = Field(
        False, description="Whether a session of 0 kWh costs the minimum too"
    )
    tax_percent: Percent | None = None
    tax_included: bool = Field(True, description="Whether rates, minimum and maximum have the tax in them")

    def terms(self, *, all_of_them: bool) -> dict[str, Any]:
        """As the fields of a Tariff: all, or those that the request names."""
        values = self.model_dump(exclude_unset=not all_of_them)
        if "bands" in values:
            values["bands"] = tuple(band.band() for band in self.bands)
        return values


class TariffIn(TariffTerms):
    currency: str = Field(description="ISO 4217")


class TariffPage(Model):
    items: list[TariffOut]
    next_cursor: str | None


class TariffVersions(Model):
    items: list[TariffOut]


class GroupIn(Input):
    tariff_id: Name | None = None


class GroupOut(Model):
    id: str
    tariff_id: str | None
    chargers: int = Field(description="How many chargers are in it")
    created_at: datetime


class Groups(Model):
    items: list[GroupOut]


class PriceIn(Input):
    """A session that might be: its energy taken evenly until `idleMinutes` before its end."""

    energy_kwh: Decimal = Field(ge=0, le=10_000, decimal_places=3)
    start: datetime = Field(description="Without an offset: by the tariff's clock")
    end: datetime
    idle_minutes: int = Field(0, ge=0, le=43_200)
    time_zone: str | None = Field(None, description="The clock of a tariff without one of its own; null: UTC")

    @model_validator(mode="after")
    def _one_clock(self) -> "PriceIn":
        if (self.start.tzinfo is None) != (self.end.tzinfo is None):
            raise ValueError("start and end: both with an offset, or both without")
        return self

    def timeline(self, tariff: Tariff) -> SessionTimeline:
        """Raises ValueError when its times cannot be."""
        if not all(2000 <= moment.year <= 2200 for moment in (self.start, self.end)):
            raise ValueError("a session takes place between 2000 and 2200")
        zone = tariff_zone(tariff)
        start, end = (
            (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
            for moment in (self.start, self.end)
        )
        if not start <= end <= start + LONGEST_SESSION:
            raise ValueError(f"a session ends after it has begun, and within {LONGEST_SESSION.days} days")
        charged_until = max(start, end - timedelta(minutes=self.idle_minutes))
        energy_wh = int(self.energy_kwh * 1000)
        evidence = Evidence(
            registers=((charged_until, energy_wh),), statuses=((charged_until, "SuspendedEV"),)
        )
        return SessionTimeline(
            started_at=start,
            ended_at=end,
            energy_wh=energy_wh,
            evidence=evidence if self.idle_minutes else Evidence(),
        )


class PriceOut(Model):
    tariff_id: str
    version: int
    start: datetime
    end: datetime
    time_zone: str = Field(description="By whose clock the bands are")
    duration_s: int
    energy_kwh: Decimal
    cost: CostOut
