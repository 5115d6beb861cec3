"""Every setting, from the environment or a `.env` file. A field has the name of its variable (docs/settings.md)."""

import ipaddress
import socket
from datetime import datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from csms.core.currencies import CURRENCIES
from csms.core.tariffs import zone_exists
from csms.errors import SettingsError

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
# Of 16 random hexadecimal digits that is 64 bits: too many to be guessed over a network.
_SHORTEST_TOKEN = 16
_SECRETS = ("PASSWORD", "TOKEN", "DATABASE_URL", "PRICES_URL")


def _flag(value: Any) -> Any:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
        raise ValueError("true, 1, yes, on or false, 0, no, off")
    return value


def off(value: Any) -> Any:
    """Read `off` as None, for a setting whose default is something else."""
    return None if isinstance(value, str) and value.strip().lower() in {"off", "none", "null"} else value


def _names(value: Any) -> Any:
    return (
        tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value
    )


def _networks(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return tuple(ipaddress.ip_network(name, strict=False) for name in _names(value))
    except ValueError:
        raise ValueError("addresses or networks such as 10.0.0.5, 172.16.0.0/12 or fd00::/8") from None


def _prefix(value: str) -> str:
    value = value.strip("/")
    if any(char in "+#" or not char.isprintable() for char in value):
        raise ValueError("a topic without the wildcards + and # and without control characters")
    if value.startswith("$"):
        raise ValueError("a topic that does not begin with $, which brokers keep to themselves")
    return value


def _client_id(value: str) -> str:
    if not value.isprintable():
        raise ValueError("printable characters only")
    return value


def _ipv4(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise ValueError("an IPv4 address of this machine, or 0.0.0.0 for all of them") from None


def _currency(value: str) -> str:
    if value not in CURRENCIES:
        raise ValueError("an ISO 4217 code such as USD, EUR or UAH")
    return value


def _time_zone(value: str) -> str:
    if not zone_exists(value):
        raise ValueError("an IANA time zone such as UTC or Europe/Vienna")
    return value


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _SHORTEST_TOKEN:
        raise ValueError(
            f"at least {_SHORTEST_TOKEN} characters, such as the output of `openssl rand -hex 24`"
        )
    return value


def _local_time(value: Any) -> Any:
    value = off(value)
    if not isinstance(value, str):
        return value
    try:
        return datetime.strptime(value.strip(), "%H:%M").time()  # noqa: DTZ007 - the zone is another setting
    except ValueError:
        raise ValueError("a local time such as 03:30, or off") from None


Flag = Annotated[bool, BeforeValidator(_flag)]
Port = Annotated[int, Field(ge=0, le=65535)]
TariffRate = Annotated[Decimal, Field(ge=0, le=1_000_000)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_names)]
Networks = Annotated[
    tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], NoDecode, BeforeValidator(_networks)
]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]


def _wrong(name: str, value: str, allowed: str) -> PydanticCustomError:
    return PydanticCustomError("csms", "{allowed}", {"name": name, "value": value, "allowed": allowed})


class Settings(BaseSettings):
    """The settings, read once at start. Only csms/cli, csms/run and csms/node see them; other packages get plain values."""

    model_config = SettingsConfigDict(
        env_file=".env", case_sensitive=False, extra="ignore", env_ignore_empty=True, frozen=True
    )

    database_url: str | None = None
    csms_data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("csms")))
    csms_embedded_broker_host: Annotated[str, AfterValidator(_ipv4)] = "127.0.0.1"
    csms_ocpp_host: str = "0.0.0.0"
    csms_ocpp_port: Port = 9000
    csms_ocpp_max_frame_bytes: int = Field(256 * 1024, ge=4096, le=16 * 1024 * 1024)
    csms_ocpp_max_accepted_frame_bytes: int = Field(4 * 1024 * 1024, ge=4096, le=64 * 1024 * 1024)
    csms_ocpp_ping_interval_s: float = Field(60, ge=0)
    csms_ocpp_silence_s: float = Field(900, ge=0)
    csms_ocpp_tls_port: Port | None = None
    csms_ocpp_tls_cert_file: Paths = ()
    csms_ocpp_tls_key_file: Paths = ()
    csms_ocpp_tls_client_ca_file: Path | None = None
    csms_ocpp_tls_names: Names = ()
    csms_ocpp_login_failures_per_minute: int = Field(10, ge=0, le=10_000)
    csms_trusted_proxies: Networks = ()
    csms_trusted_proxy_cert_header: str = "X-SSL-Client-Cert"
    csms_ca_cert_file: Path | None = None
    csms_ca_key_file: Path | None = None
    csms_cpo_name: str | None = None
    csms_certificate_days: int = Field(365, ge=1, le=7300)
    csms_certificates_per_charger_day: int = Field(10, ge=0, le=10_000)  # 0 = no limit
    csms_certificates_per_day: int = Field(5000, ge=0, le=10_000_000)  # 0 = no limit
    csms_certificate_renew_days: int = Field(30, ge=1, le=365)
    csms_security_event_retention_days: int = Field(365, ge=1)
    csms_ocpp_calls_after_s: float = Field(10, ge=0)
    csms_http_host: str = "127.0.0.1"
    csms_http_port: Port = 8080
    csms_enrollment: Literal["open", "approve", "closed"] = "approve"
    csms_unknown_tags: Literal["reject", "accept"] = "reject"
    csms_infer_stop_after_s: float = Field(300, ge=0)  # 0 = never
    csms_hold_implausible: Flag = True
    csms_max_power_w: int = Field(500_000, ge=1, le=100_000_000)
    csms_heartbeat_interval_s: int = Field(300, ge=1, le=86_400)
    csms_http_login_failures_per_minute: int = Field(10, ge=0, le=10_000)
    csms_admin_token: Annotated[SecretStr, AfterValidator(_long_enough)] | None = None
    csms_bridges: Names = ()
    csms_rental_payments: str | None = None
    csms_node: str = Field(default_factory=socket.gethostname, min_length=1)
    csms_log: Literal["auto", "console", "json"] = "auto"
    csms_currency: Annotated[str, AfterValidator(_currency)] = "USD"
    csms_energy_rate: TariffRate = Decimal("0.12")
    csms_time_rate: TariffRate = Decimal(0)
    csms_time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    csms_audit_at: Annotated[time | None, BeforeValidator(_local_time)] = None
    csms_prices_topic: Annotated[str | None, BeforeValidator(off)] = (
        "energy_prices/sensor/price_import/attributes"
    )
    csms_prices_url: SecretStr | None = None
    csms_prices_token_file: Path | None = None
    csms_prices_currency: Annotated[str, AfterValidator(_currency)] | None = None  # None = csms_currency
    csms_prices_unit: Literal["auto", "kWh", "MWh", "cent/kWh"] = "auto"
    csms_prices_area: str | None = None
    csms_prices_factor: Decimal = Field(Decimal(1), gt=0, le=10)
    csms_prices_add: Decimal = Field(Decimal(0), ge=-100, le=100)
    csms_frame_retention_days: int = Field(30, ge=1)
    csms_reading_retention_days: int = Field(0, ge=0)  # 0 = no limit
    csms_status_retention_days: int = Field(365, ge=0)  # 0 = no limit
    csms_quarantine_retention_days: int = Field(365, ge=0)  # of resolved entries; 0 = no limit

    mqtt_enabled: Annotated[bool | None, BeforeValidator(_flag)] = None
    mqtt_host: str = "localhost"
    mqtt_port: Port | None = None
    mqtt_username: str | None = None
    mqtt_password: SecretStr | None = None
    mqtt_password_file: Path | None = None
    mqtt_client_id: Annotated[str, AfterValidator(_client_id)] = "ocpp-server"
    mqtt_topic_prefix: Annotated[str, AfterValidator(_prefix)] = ""
    mqtt_business_events_enabled: Flag = True
    mqtt_protocol_events_enabled: Flag = True
    mqtt_connection_events_enabled: Flag = False
    mqtt_error_events_enabled: Flag = False
    mqtt_protocol_version: Literal["5", "3.1.1"] = "5"
    mqtt_qos: Literal[0, 1, 2] = 1
    mqtt_meter_qos: Literal[0, 1, 2] | None = None
    mqtt_protocol_qos: Literal[0, 1, 2] = 0
    mqtt_protocol_mask_id_tags: Flag = False
    mqtt_retain_state: Flag = True
    mqtt_homeassistant_discovery: Flag = False
    mqtt_homeassistant_prefix: str = Field("homeassistant", pattern="^[^+#]+[^+#/]$")
    mqtt_tls: Flag = False
    mqtt_tls_ca_file: Path | None = None
    mqtt_tls_cert_file: Path | None = None
    mqtt_tls_key_file: Path | None = None
    mqtt_tls_insecure: Flag = False
    mqtt_keepalive_s: int = Field(30, ge=5, le=65_535)
    mqtt_connect_timeout_s: float = Field(10, gt=0)
    mqtt_publish_timeout_s: float = Field(5, gt=0)
    mqtt_reconnect_min_s: float = Field(1, gt=0)
    mqtt_reconnect_max_s: float = Field(30, gt=0)
    mqtt_max_inflight: int = Field(20, ge=1, le=65_535)
    mqtt_concurrency: int = Field(100, ge=1, le=1000)
    mqtt_meter_expiry_s: int = Field(3600, ge=0)
    mqtt_meter_min_interval_s: int = Field(0, ge=0)
    mqtt_cloudevents: Literal["off", "binary", "structured"] = "binary"
    events_outbox_always: Flag = False
    outbox_lanes: int = Field(4, ge=1, le=64)
    outbox_batch: int = Field(200, ge=1, le=1000)
    outbox_poll_ms: int = Field(200, ge=10, le=10_000)
    outbox_retention_days: int = Field(14, ge=1)
    outbox_max_lag_alert_s: int = Field(30, ge=1)
    outbox_max_events: int = Field(5_000_000, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _host_implies_mqtt(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Turn MQTT on where a broker is named. With neither setting csms starts the embedded broker."""
        given = {key.lower() for key in values}
        if "mqtt_enabled" not in given and "mqtt_host" in given:
            values["mqtt_enabled"] = True
        return values

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        """Check settings that depend on each other. The message begins with the setting to change."""
        files = (self.mqtt_tls_ca_file, self.mqtt_tls_cert_file, self.mqtt_tls_key_file)
        if any(files) and not self.mqtt_tls:
            raise _wrong("MQTT_TLS", "false", "true, as MQTT_TLS_CA_FILE, _CERT_FILE or _KEY_FILE is given")
        if self.mqtt_tls_key_file is not None and self.mqtt_tls_cert_file is None:
            raise _wrong("MQTT_TLS_CERT_FILE", "unset", "the certificate of MQTT_TLS_KEY_FILE")
        if self.mqtt_password_file is not None and self.mqtt_password is not None:
            raise _wrong("MQTT_PASSWORD_FILE", "given", "either this or MQTT_PASSWORD")
        if self.mqtt_reconnect_min_s > self.mqtt_reconnect_max_s:
            raise _wrong(
                "MQTT_RECONNECT_MIN_S",
                f"{self.mqtt_reconnect_min_s:g}",
                f"at most MQTT_RECONNECT_MAX_S ({self.mqtt_reconnect_max_s:g})",
            )
        return self

    @property
    def embedded_database(self) -> bool:
        return self.database_url is None

    @property
    def embedded_broker(self) -> bool:
        return self.mqtt_enabled is None

    @property
    def mqtt(self) -> bool:
        """Whether there is a broker, embedded or not."""
        return self.mqtt_enabled is not False


def load(**overrides: Any) -> Settings:
    """Read the settings. Raises SettingsError: name, value (secrets masked), and what is allowed."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "csms":
            wrong = first["ctx"]
            raise SettingsError(wrong["name"], wrong["value"], wrong["allowed"]) from None
        raise refusal(error) from None


def refusal(error: ValidationError, prefix: str = "", secrets: tuple[str, ...] = _SECRETS) -> SettingsError:
    """Return the first error by the variable's name. A name that contains one of `secrets` is shown without value."""
    first = error.errors()[0]
    name = f"{prefix}{first['loc'][0]}".upper() if first["loc"] else "settings"
    value = "(hidden)" if any(word in name for word in secrets) else repr(first.get("input"))
    return SettingsError(name, value, _allowed(first))


def secret_of(variable: str, given: SecretStr | None, file: Path | None) -> str | None:
    """Return a secret: the content of its file if there is one, else what was given. Raises SettingsError."""
    if file is None:
        return None if given is None else given.get_secret_value()
    try:
        return file.read_text().strip()
    except OSError as error:
        raise SettingsError(variable, str(file), f"a readable file: {error.strerror}") from None


def _allowed(error: Any) -> str:
    context = error.get("ctx") or {}
    if "expected" in context:
        return str(context["expected"])
    return str(error["msg"]).removeprefix("Value error, ")
