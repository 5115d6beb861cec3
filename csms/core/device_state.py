"""What csms knows of a charger beside its connectors and transactions: records with fields named as the columns."""

from datetime import datetime
from typing import Any, ClassVar

from msgspec import Struct


class DeviceState(Struct, frozen=True, kw_only=True):
    """A row of one charger, replaced as a whole under that charger's row lock."""

    key_fields: ClassVar[tuple[str, ...]] = ("charger_id",)
    charger_id: str

    @property
    def key(self) -> tuple[Any, ...]:
        """The primary key."""
        return tuple(getattr(self, name) for name in self.key_fields)


class ConfigurationKey(DeviceState, frozen=True, kw_only=True):
    """One configuration key (OCPP 1.6, 9). `key_id` is its name in lower case: names are CiStrings.

    `supported` False: the charger answered that it has no such key. `desired`: the value of the last
    ChangeConfiguration that the charger accepted. `seen_at`: when `value` was reported; None: never.
    """

    key_fields: ClassVar = ("charger_id", "key_id")
    key_id: str
    name: str
    supported: bool = True
    value: str | None = None
    readonly: bool | None = None
    seen_at: datetime | None = None
    desired: str | None = None
    desired_at: datetime | None = None
    reboot_required: bool = False


class LocalList(DeviceState, frozen=True, kw_only=True):
    """The local authorization list of one charger: entries as `{idTag: idTagInfo}` in OCPP's JSON.

    `wanted` is the desired list, `sent` the list by the updates that the charger accepted (None: not known),
    `sent_version` the last version it accepted, `reported_version` the one it reported (-1: it has no such list).
    """

    wanted: dict[str, Any] | None = None
    wanted_at: datetime | None = None
    sent: dict[str, Any] | None = None
    sent_version: int | None = None
    sent_at: datetime | None = None
    reported_version: int | None = None
    reported_at: datetime | None = None
    last_status: str | None = None
    last_status_at: datetime | None = None


class Reservation(DeviceState, frozen=True, kw_only=True):
    """A reservation that the charger accepted. `ended_as`: used, cancelled; an expired one has none.

    `broken_by`: the transaction of another idTag on the reserved connector.
    """

    key_fields: ClassVar = ("charger_id", "id")
    id: int
    connector_id: int
    id_tag: str
    parent_id_tag: str | None = None
    expires_at: datetime
    reserved_at: datetime
    ended_at: datetime | None = None
    ended_as: str | None = None
    transaction_id: int | None = None
    broken_by: int | None = None


class ChargingProfile(DeviceState, frozen=True, kw_only=True):
    """A charging profile that the charger accepted. `profile` is OCPP's csChargingProfiles.

    A profile of a remote start has `id_tag`, and no `transaction_id` until the start is reported.
    """

    key_fields: ClassVar = ("charger_id", "id")
    id: int
    connector_id: int
    purpose: str
    stack_level: int
    transaction_id: int | None = None
    id_tag: str | None = None
    profile: dict[str, Any]
    installed_at: datetime
    cleared_at: datetime | None = None


class Job(DeviceState, frozen=True, kw_only=True):
    """A firmware update or an upload. `kind`: firmware, signed_firmware, diagnostics, log.

    `id` is that of the command that began it. `status` is OCPP's, or Requested before the first report.
    `progress` lists `{"status", "at"}`, oldest first.
    """

    key_fields: ClassVar = ("charger_id", "id")
    id: str
    kind: str
    request_id: int | None = None
    location: str | None = None
    file_name: str | None = None
    status: str = "Requested"
    progress: tuple[dict[str, Any], ...] = ()
    requested_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None


class Availability(DeviceState, frozen=True, kw_only=True):
    """The availability that a ChangeAvailability set for a connector (0: the charger as a whole).

    `scheduled`: the charger applies it when the running transaction ends.
    """

    key_fields: ClassVar = ("charger_id", "connector_id")
    connector_id: int
    desired: str
    desired_at: datetime
    scheduled: bool = False


class Capability(DeviceState, frozen=True, kw_only=True):
    """Whether a charger supports an action (`TriggerMessage`) or a variant of it (`TriggerMessage/Heartbeat`)."""

    key_fields: ClassVar = ("charger_id", "feature")
    feature: str
    supported: bool
    seen_at: datetime


class BridgeNotes(DeviceState, frozen=True, kw_only=True):
    """What a bridge keeps about a charger: JSON that only the bridge reads."""

    notes: dict[str, Any]
    noted_at: datetime


# --- append-only rows --------------------------------------------------------------------------------------


class CommandOutcome(Struct, frozen=True, kw_only=True):
    """How a command ended. `state`: see csms/core/command_states.py."""

    id: str
    charger_id: str
    action: str
    payload: dict[str, Any]
    requested_by: str
    state: str
    answer: Any
    error: str | None
    sent_at: datetime
    ended_at: datetime
    late: bool


class StoredTransfer(Struct, frozen=True, kw_only=True):
    """A DataTransfer from a charger, with the answer to it."""

    charger_id: str
    vendor_id: str
    message_id: str | None
    data: str | None
    status: str
    answer: str | None
    received_at: datetime
