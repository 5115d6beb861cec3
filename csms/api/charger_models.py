"""Chargers, their settings and commands in the JSON of the REST interface."""

from datetime import datetime
from typing import Annotated, Any

from msgspec.structs import asdict
from pydantic import AfterValidator, Field, SecretStr

from csms.api.models import Enrollment, Input, Model, Name, printable, zone
from csms.core.identity import identity_problem
from csms.db.charger_views import ChargerView
from csms.service.session_progress import summary


def _certificate_name(value: str | None) -> str | None:
    if value is not None and (problem := identity_problem(value)) is not None:
        raise ValueError(f"a name such as a serial number; this one {problem}")
    return value


class ConnectorOut(Model):
    """`connectorId` 0 is the charger as a whole. Energy is the meter's register."""

    connector_id: int
    status: str | None = Field(description="In OCPP 1.6 words, as last reported")
    error_code: str
    info: str | None
    vendor_id: str | None
    vendor_error_code: str | None
    status_at: datetime | None
    reading_at: datetime | None
    energy_wh: int | None
    power_w: int | None
    soc_percent: float | None
    transaction_id: int | None = Field(None, description="The running transaction")


class ChargerOut(Model):
    id: str
    display_name: str | None
    protocol: str
    enrollment: Enrollment
    status: str | None = Field(
        description="The one word for all connectors; the last known one while offline"
    )
    online: bool
    last_seen_at: datetime | None
    connected_at: datetime | None
    node: str | None
    remote_address: str | None
    booted_at: datetime | None
    vendor: str | None
    model: str | None
    serial_number: str | None
    firmware_version: str | None
    iccid: str | None
    imsi: str | None
    meter_type: str | None
    meter_serial_number: str | None
    heartbeat_interval_s: int | None
    time_zone: str | None
    max_power_w: int | None
    tariff_id: str | None
    group_id: str | None
    has_password: bool
    password_pending: bool = Field(description="A new AuthorizationKey was sent and is not confirmed yet")
    security_profile: int | None = Field(
        description="The least that is accepted (0 to 3). null: 1 with a password, 0 without"
    )
    pending_security_profile: int | None = Field(
        description="Sent to the charger; required from its first connection on that reaches it"
    )
    certificate_name: str | None
    created_at: datetime
    connectors: list[ConnectorOut]

    @classmethod
    def of(cls, view: ChargerView) -> "ChargerOut":
        running = {s.transaction.connector_id: s.transaction.id for s in view.sessions}
        values = asdict(view) | asdict(view.charger) | asdict(view.state)
        if not view.state.online:
            values |= {"connected_at": None, "node": None}
        values["connectors"] = [
            ConnectorOut(**asdict(plug), transaction_id=running.get(plug.connector_id))
            for plug in view.connectors
        ]
        return cls(**values, status=summary(view.connectors))


class ChargerSettings(Input):
    """What an operator decides about a charger. Left out: unchanged (or the default, when it is new)."""

    display_name: Name | None = None
    enrollment: Enrollment = "Accepted"
    tariff_id: Name | None = None
    group_id: Name | None = Field(None, description="Its tariff applies when the charger has none of its own")
    heartbeat_interval_s: int | None = Field(None, ge=1, le=86_400)
    max_power_w: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="The most it can give, in W: more energy than that in a session is not billed unseen."
        " null: CSMS_MAX_POWER_W",
    )
    time_zone: Annotated[str | None, AfterValidator(zone)] = None
    password: Annotated[SecretStr, Field(min_length=8, max_length=64)] | None = Field(
        None,
        description="For Basic authentication: an OCPP AuthorizationKey, raw or in hex. null: none is asked",
    )

    security_profile: int | None = Field(
        None,
        ge=0,
        le=3,
        description="0 none, 1 Basic, 2 TLS and Basic, 3 client certificate. null: 1 with a password, 0 without",
    )
    certificate_name: Annotated[str | None, AfterValidator(_certificate_name)] = Field(
        None,
        max_length=64,
        description="The CN of the certificates that it is issued, in place of its identity: its serial number",
    )


class NewCharger(ChargerSettings):
    protocol: Annotated[str, Field(min_length=1, max_length=32), AfterValidator(printable)] = "ocpp1.6"


class ChargerPage(Model):
    items: list[ChargerOut]
    next_cursor: str | None


class CommandIn(Input):
    """Any OCPP 1.6 action of a central system, its payload in OCPP's own JSON."""

    action: Annotated[str, Field(min_length=1, max_length=64)]
    payload: dict[str, Any] = Field({})
    timeout_s: float = Field(30, ge=1, le=300, description="How long to wait for the charger's answer")
    queue: bool = Field(False, description="Do not wait: have it delivered when the charger is connected")
    expires_in_s: float = Field(
        86_400, ge=1, le=30 * 86_400, description="With `queue`: forget it after that"
    )


class CommandOut(Model):
    response: dict[str, Any] = Field(description="The charger's own payload")


class DeviationOut(Model):
    """One way in which a charger departs from the protocol, and how often it did."""

    action: str
    field: str
    kind: str
    detail: str
    count: int
    first_at: datetime
    last_at: datetime


class Deviations(Model):
    items: list[DeviationOut]
