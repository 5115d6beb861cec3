"""Settings of the coin-op bridge, COINOP_* (docs/bridges/coin-op.md)."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from csms.core.identity import identity_problem
from csms.settings import Flag, refusal


def _id_prefix(value: str) -> str:
    if (problem := identity_problem(f"{value}1")) is not None:
        raise ValueError(f"the beginning of an identity: {value!r} {problem}")
    return value


class CoinOpSettings(BaseSettings):
    """Read once, when the bridge is created."""

    model_config = SettingsConfigDict(
        env_prefix="COINOP_", env_file=".env", case_sensitive=False, extra="ignore", env_ignore_empty=True
    )

    id_prefix: Annotated[str, Field(max_length=64), AfterValidator(_id_prefix)] = "coinop-"
    service_uid: str = Field("csms", pattern=r"^[A-Za-z0-9_-]{1,128}$")
    open_enrollment: Flag = False
    power_scale: Literal["auto", "1", "0.1"] = "auto"
    energy_mode: Literal["auto", "session", "cumulative"] = "auto"
    rated_power_w: float = Field(3680, gt=0, le=1_000_000)
    answer_s: float = Field(15, gt=0, le=600)
    meter_interval_s: float = Field(60, ge=1, le=3600)
    probe_interval_s: float = Field(300, ge=1, le=86_400)
    require_account: Flag = True
    debit: Literal["end", "dynamic"] = "end"
    min_balance: Annotated[Decimal | None, Field(ge=0)] = None
    autostop: Literal["never", "at_max_debt"] = "never"
    max_debt: Annotated[Decimal, Field(ge=0)] = Decimal(100)
    free_seconds: int = Field(120, ge=0, le=86_400)


def load(**overrides: Any) -> CoinOpSettings:
    """Load the settings from the environment. Raises SettingsError: name, value, what is allowed."""
    try:
        return CoinOpSettings(**overrides)
    except ValidationError as error:
        raise refusal(error, "COINOP_", secrets=()) from None
