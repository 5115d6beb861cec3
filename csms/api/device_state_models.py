"""The JSON of commands and of what we remember of chargers."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec.structs import asdict
from pydantic import AwareDatetime, Field

from csms.api.models import IdTag, Input, Model
from csms.core import availability, command_queue, configuration, local_list, reservations
from csms.core.device_state import ConfigurationKey, LocalList, Reservation
from csms.core.masking import MASK, is_secret
from csms.db.commands import CommandView
from csms.db.device_state_views import PlugAvailability

Connector = Annotated[int, Field(ge=0, le=1000)]
Patience = Annotated[float, Field(ge=1, le=300, description="How long to wait for each answer")]


class CommandRecord(Model):
    """A command. Payloads are OCPP's own JSON, passwords masked."""

    id: str
    charger_id: str
    action: str
    payload: dict[str, Any]
    state: str = Field(
        description="waiting, sending, answered, refused, confirmed (found to have happened), no_answer, not_sent,"
        " expired, cancelled, failed"
    )
    repeatable: str = Field(description="safe, reconcile or manual: whether it may be sent again by itself")
    requested_by: str
    requested_at: datetime
    queued: bool
    attempts: int
    due_at: datetime | None
    expires_at: datetime | None
    sent_at: datetime | None
    ended_at: datetime | None
    response: Any = Field(description="The charger's payload, or its error")
    error: str | None
    late_response: Any
    late_at: datetime | None

    @classmethod
    def of(cls, view: CommandView) -> "CommandRecord":
        return cls(
            **asdict(view),
            response=view.answer,
            late_response=view.late_answer,
            repeatable=command_queue.retry_class(view.action),
        )


class CommandPage(Model):
    items: list[CommandRecord]
    next_cursor: str | None


# --- configuration -----------------------------------------------------------------------------------------


class ConfigurationKeyOut(Model):
    """`value` as the charger last reported it, `desired` what it took from us last."""

    key: str
    supported: bool
    value: str | None
    readonly: bool | None
    seen_at: datetime | None
    desired: str | None
    desired_at: datetime | None
    reboot_required: bool
    in_sync: bool | None = Field(description="false: drift; null: nothing desired, or not reported since")

    @classmethod
    def of(cls, row: ConfigurationKey) -> "ConfigurationKeyOut":
        shown = asdict(row)
        if is_secret(row.name):  # older releases stored some
            shown |= {name: MASK for name in ("value", "desired") if shown[name] is not None}
        return cls(**shown, key=row.name, in_sync=configuration.configuration_in_sync(row))


class Configuration(Model):
    items: list[ConfigurationKeyOut]


class Refresh(Input):
    keys: list[Annotated[str, Field(min_length=1, max_length=50)]] = Field([], max_length=1000)
    timeout_s: Patience = 30


# --- local list --------------------------------------------------------------------------------------------


class LocalListEntry(Input):
    id_tag: Annotated[IdTag, Field(max_length=20)]
    status: Literal["Accepted", "Blocked", "Expired", "Invalid", "ConcurrentTx"] = "Accepted"
    expiry_date: AwareDatetime | None = None
    parent_id_tag: Annotated[IdTag, Field(max_length=20)] | None = None


class LocalListIn(Input):
    """What the charger's list shall be: these entries, or, without them, all tags we know."""

    entries: list[LocalListEntry] | None = Field(None, max_length=100_000)
    full: bool = Field(False, description="Send the whole list, whatever the charger holds by all we know")
    queue: bool = False
    expires_in_s: float = Field(86_400, ge=1, le=30 * 86_400)
    timeout_s: Patience = 30


class LocalListOut(Model):
    wanted: dict[str, Any] | None = Field(description="idTag → OCPP's idTagInfo")
    wanted_at: datetime | None
    in_sync: bool | None = Field(description="null: nothing wanted, or what the charger holds is not known")
    sent_version: int | None
    sent_at: datetime | None
    reported_version: int | None = Field(description="The charger's own word; -1: it has no such list")
    reported_at: datetime | None
    last_status: str | None
    last_status_at: datetime | None
    updates: list[dict[str, Any]] = Field([], description="What this request sent or queued")

    @classmethod
    def of(cls, row: LocalList | None, updates: list[dict[str, Any]]) -> "LocalListOut":
        row = row or LocalList(charger_id="")
        return cls(**asdict(row), in_sync=local_list.local_list_in_sync(row), updates=updates)


# --- reservations ------------------------------------------------------------------------------------------


class ReservationIn(Input):
    connector_id: Connector = 0
    id_tag: Annotated[IdTag, Field(max_length=20)]
    parent_id_tag: Annotated[IdTag, Field(max_length=20)] | None = None
    expiry_date: AwareDatetime
    timeout_s: Patience = 30


class ReservationOut(Model):
    id: int
    connector_id: int
    id_tag: str
    parent_id_tag: str | None
    expires_at: datetime
    reserved_at: datetime
    state: str = Field(description="active, used, cancelled or expired")
    ended_at: datetime | None
    transaction_id: int | None = Field(description="The transaction that used it")
    broken_by: int | None = Field(description="Somebody else's transaction on the reserved connector")

    @classmethod
    def of(cls, row: Reservation, now: datetime) -> "ReservationOut":
        return cls(**asdict(row), state=reservations.reservation_state(row, now))


class Reservations(Model):
    items: list[ReservationOut]


class Reserved(Model):
    reservation_id: int
    status: str | None = Field(description="The charger's answer: Accepted, Faulted, Occupied, …")


class Answered(Model):
    status: str | None = Field(description="The charger's answer")


# --- smart charging ----------------------------------------------------------------------------------------


class ChargingProfileOut(Model):
    id: int
    connector_id: int
    purpose: str
    stack_level: int
    transaction_id: int | None
    id_tag: str | None = Field(description="It came with this tag's remote start")
    profile: dict[str, Any]
    installed_at: datetime
    cleared_at: datetime | None


class ChargingProfiles(Model):
    items: list[ChargingProfileOut]


class CompositeIn(Input):
    connector_id: Connector
    duration_s: int = Field(86_400, ge=1, le=31 * 86_400)
    charging_rate_unit: Literal["A", "W"] = "A"
    ask: bool = Field(True, description="Ask the charger too")
    timeout_s: Patience = 30


class PeriodOut(Model):
    start_s: int
    limit: float | None = Field(description="null: nothing limits")
    phases: int | None


class CompositeOut(Model):
    """Our own reckoning from the profiles that the charger took, beside the charger's answer."""

    begin: datetime
    charging_rate_unit: str
    expected: list[PeriodOut]
    reported: dict[str, Any] | None
    agrees: bool | None = Field(description="null: the charger was not asked or gave no schedule")


# --- jobs, availability, and the rest ----------------------------------------------------------------------


class JobOut(Model):
    id: str = Field(description="The id of the command that began it")
    kind: str = Field(description="firmware, signed_firmware, diagnostics, log")
    request_id: int | None
    location: str | None
    file_name: str | None
    status: str
    progress: list[dict[str, Any]]
    requested_at: datetime
    updated_at: datetime
    ended_at: datetime | None


class Jobs(Model):
    items: list[JobOut]


class AvailabilityOut(Model):
    """`connectorId` 0 is the charger as a whole."""

    connector_id: int
    status: str | None
    status_at: datetime | None
    desired: str | None
    desired_at: datetime | None
    scheduled: bool
    in_sync: bool | None

    @classmethod
    def of(cls, plug: PlugAvailability) -> "AvailabilityOut":
        asked = plug.asked
        return cls(
            connector_id=plug.connector_id,
            status=plug.status,
            status_at=plug.status_at,
            desired=asked.desired if asked else None,
            desired_at=asked.desired_at if asked else None,
            scheduled=asked.scheduled if asked else False,
            in_sync=availability.availability_in_sync(asked.desired if asked else None, plug.status),
        )


class Availabilities(Model):
    items: list[AvailabilityOut]


class CapabilityOut(Model):
    feature: str = Field(description="An action, or an action and the message it triggers")
    supported: bool
    seen_at: datetime


class Capabilities(Model):
    items: list[CapabilityOut]


class TransferOut(Model):
    id: int
    vendor_id: str
    message_id: str | None
    data: str | None
    status: str
    answer: str | None
    received_at: datetime


class TransferPage(Model):
    items: list[TransferOut]
    next_cursor: str | None
