"""The JSON of the REST interface. Keys in camelCase with their units; money as decimal strings."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from csms.core.pricing import Component, Cost, Unit
from csms.core.records import Connector
from csms.db.admin import TagView
from csms.db.charger_views import ChargerView
from csms.db.tariffs import TariffView
from csms.db.transaction_views import ReadingView, TransactionView
from csms.service.session_progress import progress, summary


def printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("printable characters only")
    return value


def zone(value: str | None) -> str | None:
    if value is not None and value not in available_timezones():
        raise ValueError("an IANA time zone such as Europe/Vienna")
    return ZoneInfo(value).key if value is not None else None


Name = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(printable)]
IdTag = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(printable)]
Rate = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=6)]
Enrollment = Literal["Accepted", "Pending", "Rejected"]
TagStatus = Literal["Accepted", "Blocked", "Expired", "Invalid"]
Role = Literal["admin", "operator", "viewer"]


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class Input(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", hide_input_in_errors=True
    )

    def given(self) -> dict[str, Any]:
        """The fields that the request names, by their column."""
        return self.model_dump(exclude_unset=True)


# --- chargers --------------------------------------------------------------------------------------------


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
        charger, state = view.charger, view.state
        return cls(
            **{name: getattr(charger, name) for name in charger.__struct_fields__},
            display_name=view.display_name,
            status=summary(view.connectors),
            online=state.online,
            last_seen_at=state.last_seen_at,
            connected_at=state.connected_at if state.online else None,
            node=state.node if state.online else None,
            remote_address=state.remote_address,
            has_password=view.has_password,
            password_pending=view.password_pending,
            security_profile=view.security_profile,
            pending_security_profile=view.pending_security_profile,
            certificate_name=view.certificate_name,
            created_at=view.created_at,
            connectors=[_connector(plug, running.get(plug.connector_id)) for plug in view.connectors],
        )


def _connector(plug: Connector, transaction_id: int | None) -> ConnectorOut:
    return ConnectorOut.model_validate(plug).model_copy(update={"transaction_id": transaction_id})


class ChargerSettings(Input):
    """What an operator decides about a charger. Left out: unchanged (or the default, when it is new)."""

    display_name: Name | None = None
    enrollment: Enrollment = "Accepted"
    tariff_id: Name | None = None
    group_id: Name | None = Field(None, description="Its tariff applies when the charger has none of its own")
    heartbeat_interval_s: int | None = Field(None, ge=1, le=86_400)
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
    certificate_name: Name | None = Field(
        None, description="What the CN of its certificate may say instead of its identity: its serial number"
    )


class NewCharger(ChargerSettings):
    protocol: Annotated[str, Field(min_length=1, max_length=32), AfterValidator(printable)] = "ocpp1.6"


class ChargerPage(Model):
    items: list[ChargerOut]
    next_cursor: str | None


class CommandIn(Input):
    """Any OCPP 1.6 action of a central system, its payload in OCPP's own JSON."""

    action: Annotated[str, Field(min_length=1, max_length=64)]
    payload: dict[str, Any] = {}
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


# --- transactions ----------------------------------------------------------------------------------------


class Money(Model):
    amount: Decimal
    amount_minor: int
    currency: str


class CostLineOut(Model):
    component: Component
    band: str | None = None
    quantity: Decimal | None = None
    unit: Unit | None = None
    rate: Decimal | None = None
    amount_minor: int


class TaxOut(Model):
    percent: Decimal
    included: bool
    amount_minor: int
    net_minor: int


class CostOut(Money):
    """The lines of `breakdown` add up to `amountMinor`."""

    breakdown: list[CostLineOut]
    tax: TaxOut | None

    @classmethod
    def of(cls, cost: Cost) -> "CostOut":
        return cls(
            amount=cost.amount,
            amount_minor=cost.amount_minor,
            currency=cost.currency,
            breakdown=[CostLineOut.model_validate(line) for line in cost.bill.lines],
            tax=None if cost.bill.tax is None else TaxOut.model_validate(cost.bill.tax),
        )


class BandOut(Model):
    name: str
    days: list[str]
    start: str
    end: str
    energy_rate: Decimal | None
    time_rate: Decimal | None
    idle_rate: Decimal | None


class TariffOut(Model):
    """Prices: per kWh, per minute, per session, per idle minute; other rates in bands of the week; bounds; tax."""

    id: str
    version: int
    currency: str
    energy_rate: Decimal
    time_rate: Decimal
    session_fee: Decimal
    idle_rate: Decimal
    idle_grace_min: int
    bands: list[BandOut]
    time_zone: str | None
    minimum: Decimal | None
    maximum: Decimal | None
    tax_percent: Decimal | None
    tax_included: bool
    created_at: datetime | None = None

    @classmethod
    def of(cls, view: TariffView) -> "TariffOut":
        return cls.model_validate(view.tariff).model_copy(update={"created_at": view.created_at})


class TransactionOut(Model):
    """While `active`, energy, duration and cost are those so far. Times are the charger's clock; `…ReceivedAt`
    ours. `energySource` says what the energy was derived from."""

    id: int
    charger_id: str
    connector_id: int
    id_tag: str
    parent_id_tag: str | None
    reservation_id: int | None
    authorization_status: str
    active: bool
    started_at: datetime
    start_received_at: datetime
    clock_suspect: bool
    stopped_at: datetime | None
    stop_received_at: datetime | None
    stop_reason: str | None
    stop_id_tag: str | None
    meter_start_wh: int
    meter_stop_wh: int | None
    energy_wh: int | None
    energy_source: str | None = Field(description="meter_stop, last_reading or none")
    duration_s: int
    power_w: int | None
    soc_percent: float | None
    cost: CostOut
    tariff: TariffOut
    inferred: bool = Field(description="The stop never came; it was inferred")
    revision: int
    anomalies: list[str]

    @classmethod
    def of(cls, session: TransactionView, now: datetime) -> "TransactionOut":
        t, so_far = session.transaction, progress(session, now)
        own = {
            name: getattr(t, name)
            for name in t.__struct_fields__
            if name
            not in {"key", "authorization_expiry_at", "bill", "cost", "cost_minor", "duration_s", "energy_wh"}
        }
        own["tariff"] = TariffOut.model_validate(t.tariff)
        return cls(
            **own,
            active=t.open,
            energy_wh=so_far.energy_wh,
            duration_s=int(so_far.duration_s),
            power_w=so_far.power_w,
            soc_percent=so_far.soc_percent,
            cost=CostOut.of(so_far.cost),
        )


class TransactionPage(Model):
    items: list[TransactionOut]
    next_cursor: str | None


class ReadingOut(Model):
    connector_id: int
    sampled_at: datetime
    received_at: datetime
    energy_wh: int | None
    power_w: int | None
    soc_percent: float | None
    samples: list[dict[str, Any]] = Field(description="The OCPP sampled values as they came")

    @classmethod
    def of(cls, view: ReadingView) -> "ReadingOut":
        samples = [{k: v for k, v in sample.items() if v is not None} for sample in view.samples]
        return cls.model_validate(view).model_copy(update={"samples": samples})


class ReadingPage(Model):
    items: list[ReadingOut]
    next_cursor: str | None


# --- tags, tariffs, tokens -------------------------------------------------------------------------------


class TagIn(Input):
    status: TagStatus = "Accepted"
    expiry_date: AwareDatetime | None = None
    parent_id_tag: IdTag | None = None
    max_active_transactions: int | None = Field(None, ge=0, le=1_000_000)
    tariff_id: Name | None = Field(None, description="Comes before the charger's")


class TagOut(Model):
    id_tag: str
    status: TagStatus
    expiry_date: datetime | None
    parent_id_tag: str | None
    max_active_transactions: int | None
    tariff_id: str | None
    created_at: datetime

    @classmethod
    def of(cls, view: TagView) -> "TagOut":
        tag = view.tag
        return cls(
            id_tag=tag.id_tag,
            status=tag.status,  # type: ignore[arg-type]  # the table's own check says the same
            expiry_date=tag.expiry_at,
            parent_id_tag=tag.parent_id_tag,
            max_active_transactions=tag.max_active_transactions,
            tariff_id=tag.tariff_id,
            created_at=view.created_at,
        )


class TagPage(Model):
    items: list[TagOut]
    next_cursor: str | None


class TokenIn(Input):
    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
    role: Role = "viewer"


class TokenOut(Model):
    id: int
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


class NewToken(TokenOut):
    token: str = Field(description="The bearer token: shown this once, kept nowhere")


class Tokens(Model):
    items: list[TokenOut]


# --- logs ------------------------------------------------------------------------------------------------


class MessageOut(Model):
    """A raw frame. `in` came from the charger, `out` went to it."""

    at: datetime
    direction: Literal["in", "out"]
    action: str | None
    message_id: str | None
    frame: str


class MessagePage(Model):
    items: list[MessageOut]
    next_cursor: str | None


class QuarantinedOut(Model):
    """A message that was acknowledged and could not be booked.

    `payload` is what came, as text; `ocpp` the same as OCPP's JSON where that is possible: mend it and send it
    to `/repair`.
    """

    id: int
    charger_id: str
    action: str
    message_id: str | None
    payload: str
    error: str
    transaction_id: int | None
    received_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    ocpp: dict[str, Any] | None = None


class QuarantinePage(Model):
    items: list[QuarantinedOut]
    next_cursor: str | None


class RepairIn(Input):
    """`payload`: the message in OCPP's JSON as it should have been; left out: as it came.

    `transactionId` takes the place of the payload's.
    """

    payload: dict[str, Any] | None = None
    transaction_id: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    note: Annotated[str, Field(max_length=2000)] = ""


class RepairOut(Model):
    """`transactionId`: what it was booked as (null for readings)."""

    transaction_id: int | None
    entry: QuarantinedOut


class Resolution(Input):
    note: Annotated[str, Field(min_length=1, max_length=2000)]


# --- certificates, security events ---------------------------------------------------------------------


class SecurityEventOut(Model):
    """`reportedAt` is the charger's clock, `recordedAt` ours."""

    id: int
    type: str
    tech_info: str | None
    reported_at: datetime | None
    recorded_at: datetime


class SecurityEventPage(Model):
    items: list[SecurityEventOut]
    next_cursor: str | None


class CertificateOut(Model):
    """A client certificate. `issued`: sent, and not answered by the charger yet."""

    serial: str
    charger_id: str | None
    status: Literal["issued", "accepted", "rejected", "revoked"]
    subject: str | None
    not_before: datetime | None
    not_after: datetime | None
    issued_at: datetime
    answered_at: datetime | None
    revoked_at: datetime | None
    reason: str | None
    pem: str | None


class Certificates(Model):
    items: list[CertificateOut]


class Revocation(Input):
    reason: Annotated[str, Field(max_length=500), AfterValidator(printable)] | None = None


# --- health, problems ------------------------------------------------------------------------------------


class CheckOut(Model):
    name: str
    state: Literal["ok", "degraded", "failing"]
    detail: str


class HealthOut(Model):
    status: Literal["ok", "degraded", "failing"]
    checks: list[CheckOut]


class ProblemOut(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
