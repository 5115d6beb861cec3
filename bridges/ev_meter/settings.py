"""Settings of the EV-Meter bridge, EVMETER_*. Broker and login are constants; secrets come from files."""

import base64
import binascii
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridges.ev_meter.config import ChargerConfig, EvMeterConfig, PollIntervals, charger_config
from bridges.ev_meter.frame import TOKEN_BYTES, VendorAccount, account_from_request
from bridges.ev_meter.login import read_secret, shared_password
from bridges.ev_meter.open_session import SessionRules
from csms.errors import SettingsError
from csms.settings import refusal

_REQUEST_BYTES = 99


class EvMeterSettings(BaseSettings):
    """Read once, when the bridge is created."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_prefix="EVMETER_",
        case_sensitive=False,
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
    )

    account_uuid_file: Path | None = None
    token_file: Path | None = None
    request_file: Path | None = None
    password_file: Path | None = None
    chargers: SecretStr = SecretStr("")  # addresses are personal data and must not appear in an error
    chargers_file: Path | None = None
    id_tag: str | None = Field(None, min_length=1, max_length=20)
    idle_interval_s: float = Field(60, ge=10, le=3600)
    charging_interval_s: float = Field(20, ge=10, le=3600)
    max_requests_per_s: float = Field(10, gt=0, le=1000)
    missed_sessions: Literal["book", "log"] = "book"
    finish_after_min: float = Field(0, ge=0)
    give_up_after_h: float = Field(24, gt=0)


def load(**overrides: Any) -> EvMeterSettings:
    """Load the settings from the environment. Raises SettingsError: name, value, what is allowed."""
    try:
        return EvMeterSettings(**overrides)
    except ValidationError as error:
        raise refusal(error, "EVMETER_", secrets=()) from None


def config(chosen: EvMeterSettings) -> EvMeterConfig:
    """Build the adapter's configuration. Raises SettingsError, which quotes no secret and no address."""
    return EvMeterConfig(
        account=_account(chosen),
        chargers=_chargers(chosen),
        rules=SessionRules(
            missed_sessions=chosen.missed_sessions,
            give_up_after=timedelta(hours=chosen.give_up_after_h),
            finish_after=timedelta(minutes=chosen.finish_after_min) or None,
        ),
        intervals=PollIntervals(
            idle_s=chosen.idle_interval_s,
            charging_s=chosen.charging_interval_s,
            requests_per_s=chosen.max_requests_per_s,
        ),
    )


def password(chosen: EvMeterSettings) -> SecretStr:
    return shared_password(chosen.password_file)


# --- the account -----------------------------------------------------------------------------------------


def _account(chosen: EvMeterSettings) -> VendorAccount:
    if chosen.request_file is not None:
        frame = _bytes("EVMETER_REQUEST_FILE", chosen.request_file, _REQUEST_BYTES)
        try:
            return account_from_request(frame)
        except ValueError as error:
            raise SettingsError("EVMETER_REQUEST_FILE", str(chosen.request_file), str(error)) from None
    if chosen.account_uuid_file is None or chosen.token_file is None:
        raise SettingsError(
            "EVMETER_ACCOUNT_UUID_FILE" if chosen.account_uuid_file is None else "EVMETER_TOKEN_FILE",
            "(unset)",
            "a file with the account's UUID, and EVMETER_TOKEN_FILE with its token (or EVMETER_REQUEST_FILE)",
        )
    token = _bytes("EVMETER_TOKEN_FILE", chosen.token_file, TOKEN_BYTES)
    text = read_secret("EVMETER_ACCOUNT_UUID_FILE", chosen.account_uuid_file).decode(errors="replace").strip()
    if len(text) == 72:  # as in the reply topic
        text = _hex(text).decode(errors="replace")
    try:
        return VendorAccount(text.lower(), token)
    except ValueError as error:
        raise SettingsError("EVMETER_ACCOUNT_UUID_FILE", str(chosen.account_uuid_file), str(error)) from None


def _bytes(variable: str, path: Path, size: int) -> bytes:
    """Read `size` bytes from a file that has them in binary, in hexadecimal or in base64."""
    content = read_secret(variable, path)
    text = content.strip()
    candidates = [content, text, _hex(text.decode(errors="replace"))]
    with contextlib.suppress(binascii.Error, ValueError):
        candidates.append(base64.b64decode(text, validate=True))
    for candidate in candidates:
        if len(candidate) == size:
            return candidate
    raise SettingsError(variable, str(path), f"{size} bytes, as they are, in hexadecimal or in base64")


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


# --- the chargers ----------------------------------------------------------------------------------------


def _chargers(chosen: EvMeterSettings) -> tuple[ChargerConfig, ...]:
    variable, lines = "EVMETER_CHARGERS", chosen.chargers.get_secret_value().split(",")
    if chosen.chargers_file is not None:
        variable = "EVMETER_CHARGERS_FILE"
        lines = read_secret(variable, chosen.chargers_file).decode(errors="replace").splitlines()
    entries = [line.split("#", 1)[0].strip() for line in lines]
    try:
        chargers = tuple(_charger(entry, chosen.id_tag) for entry in entries if entry)
        _check(chargers)
    except ValueError as error:
        raise SettingsError(variable, "(hidden)", str(error)) from None
    return chargers


def _check(chargers: tuple[ChargerConfig, ...]) -> None:
    if not chargers:
        raise ValueError("at least one NAME=ADDRESS")
    if len({each.charger_id for each in chargers}) < len(chargers):
        raise ValueError("every NAME once")
    if len({each.device_id for each in chargers}) < len(chargers):
        raise ValueError("every ADDRESS once")


def _charger(entry: str, id_tag: str | None) -> ChargerConfig:
    """Parse `NAME=ADDRESS`, or `NAME=ADDRESS@DEVICE` for a charger whose replies have another identity."""
    name, equals, rest = entry.partition("=")
    if not equals:
        raise ValueError("NAME=ADDRESS, such as garage=020000AABBCC: the address itself is personal data")
    address, _, device_id = rest.partition("@")
    return charger_config(name.strip(), address.strip(), device_id=device_id.strip() or None, id_tag=id_tag)
