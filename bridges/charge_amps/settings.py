"""Settings of the Charge Amps bridge, CHARGE_AMPS_* (docs/bridges/charge-amps.md)."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec.structs import replace
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridges.charge_amps.cloud import ChargeAmpsCloud
from bridges.charge_amps.config import ChargeAmpsConfig, ChargeAmpsIntervals
from bridges.charge_amps.eapi import EapiCloud
from bridges.charge_amps.web_api import WebApiCloud
from csms.errors import SettingsError
from csms.scheduling.feeds import Markup
from csms.settings import Flag, Names, off, refusal, secret_of

_SECRETS = ("PASSWORD", "API_KEY", "TOKEN", "EMAIL")


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("an IANA time zone such as Europe/Amsterdam") from None
    return value


def _url(value: str) -> str:
    value = value.rstrip("/")
    if not value.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise ValueError("an address that begins with https://")
    return value


def _rfid(value: str) -> str:
    try:
        number = bytes.fromhex(value)
    except ValueError:
        number = b""
    if not 4 <= len(number) <= 10:
        raise ValueError("8 to 20 hexadecimal digits")
    return value.upper()


Price = Annotated[Decimal, Field(ge=-1000, le=1000)]


class ChargeAmpsSettings(BaseSettings):
    """Read once, when the bridge is created."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_prefix="CHARGE_AMPS_",
        case_sensitive=False,
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
    )

    email: SecretStr
    password: SecretStr | None = None
    password_file: Path | None = None
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    web: Flag = True
    web_url: Annotated[str, AfterValidator(_url)] = "https://my.charge.space/api"
    eapi_url: Annotated[str, AfterValidator(_url)] = "https://eapi.charge.space/api/v5"
    user_agent: str = "Mozilla/5.0"
    timezone: Annotated[str, AfterValidator(_zone)]
    charge_points: Names = ()
    connector_ids: Names = ("1",)
    primary: str | None = None
    rfid: Annotated[str, AfterValidator(_rfid)] | None = None
    operation_mode: Literal["standalone", "hems"] = "standalone"
    automation_enabled: Flag = True
    price_threshold: Annotated[Price | None, BeforeValidator(off)] = Decimal("0.25")
    top_x_charge_count: int = Field(16, ge=1, le=100)
    max_current_per_phase: float = Field(16, ge=6, le=32)
    currency: str = Field("EUR", pattern="^[A-Z]{3}$")
    price_topic: Annotated[str | None, BeforeValidator(off)] = "energy_prices/sensor/price_import/attributes"
    price_url: SecretStr | None = None
    price_token_file: Path | None = None
    price_unit: Literal["auto", "kWh", "MWh", "cent/kWh"] = "auto"
    price_area: str | None = None
    price_factor: Decimal = Field(Decimal(1), gt=0, le=10)
    price_add: Decimal = Field(Decimal(0), ge=-100, le=100)
    take_over: Flag = False
    mode_after_clear: Literal["on", "off", "keep"] = "on"
    week_encoding: Literal["elapsed", "wall"] = "elapsed"
    poll_interval_s: float = Field(30, ge=10, le=600)
    backfill_days: int = Field(7, ge=0, le=90)
    homeassistant_prefix: Annotated[str | None, BeforeValidator(off)] = "homeassistant"


def load(**overrides: Any) -> ChargeAmpsSettings:
    """Load the settings from the environment. Raises SettingsError: name, value (secrets masked), what is allowed."""
    try:
        return ChargeAmpsSettings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            name = f"CHARGE_AMPS_{first['loc'][0]}".upper()
            raise SettingsError(name, "(unset)", "a value: the bridge needs it") from None
        raise refusal(error, "CHARGE_AMPS_", _SECRETS) from None


def config(chosen: ChargeAmpsSettings) -> ChargeAmpsConfig:
    """Build the adapter's configuration. Raises SettingsError."""
    if not all(one.isdecimal() and int(one) > 0 for one in chosen.connector_ids) or not chosen.connector_ids:
        raise SettingsError(
            "CHARGE_AMPS_CONNECTOR_IDS",
            repr(",".join(chosen.connector_ids)),
            "numbers from 1, comma separated",
        )
    return ChargeAmpsConfig(
        zone=ZoneInfo(chosen.timezone),
        time_zone=chosen.timezone,
        charge_points=chosen.charge_points,
        connectors=tuple(int(one) for one in chosen.connector_ids),
        primary=chosen.primary or (chosen.charge_points[0] if chosen.charge_points else None),
        mode=chosen.operation_mode,
        automation=chosen.automation_enabled,
        price_threshold=chosen.price_threshold,
        top_x=chosen.top_x_charge_count,
        current_a=chosen.max_current_per_phase,
        currency=chosen.currency,
        price_topic=chosen.price_topic,
        price_url=secret_of("CHARGE_AMPS_PRICE_URL", chosen.price_url, None),
        price_token=secret_of("CHARGE_AMPS_PRICE_TOKEN_FILE", None, chosen.price_token_file),
        price_unit=chosen.price_unit,
        price_area=chosen.price_area,
        markup=Markup(factor=chosen.price_factor, add=chosen.price_add),
        take_over=chosen.take_over,
        mode_after_clear=chosen.mode_after_clear,
        encoding=chosen.week_encoding,
        rfid=chosen.rfid,
        backfill_days=chosen.backfill_days,
        discovery=chosen.homeassistant_prefix,
        intervals=replace(ChargeAmpsIntervals(), poll_s=chosen.poll_interval_s),
    )


def clouds(chosen: ChargeAmpsSettings) -> tuple[ChargeAmpsCloud, WebApiCloud | None]:
    """Create the API clients, for chargers and for schedules: the official API if there is a key. Raises SettingsError."""
    email = chosen.email.get_secret_value()
    password = secret_of("CHARGE_AMPS_PASSWORD_FILE", chosen.password, chosen.password_file)
    if not password:
        raise SettingsError(
            "CHARGE_AMPS_PASSWORD", "(unset)", "a password here or in CHARGE_AMPS_PASSWORD_FILE"
        )
    web = None
    if chosen.web:
        web = WebApiCloud(chosen.web_url, email, password, user_agent=chosen.user_agent)
    key = secret_of("CHARGE_AMPS_API_KEY_FILE", chosen.api_key, chosen.api_key_file)
    if key:
        return EapiCloud(chosen.eapi_url, email, password, key), web
    if web is None:
        raise SettingsError("CHARGE_AMPS_WEB", "'false'", "true, unless CHARGE_AMPS_API_KEY(_FILE) is set")
    return web, web
