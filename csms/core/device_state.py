"""What we remember of a charger beside its connectors and transactions: records, fields named as the columns."""

from datetime import datetime
from typing import Any

from msgspec import Struct


class DeviceState(Struct, frozen=True, kw_only=True):
    """A row of one charger, replaced as a whole under that charger's row lock."""

    charger_id: str

    @property
    def key(self) -> tuple[Any, ...]:
        """The primary key."""
        raise NotImplementedError


class ConfigurationKey(DeviceState, frozen=True, kw_only=True):
    """One configuration key (OCPP 1.6, 9). `key_id` is its name folded: keys are compared without regard to case.

    `supported` False: the charger said it has no such key. `desired`: what a ChangeConfiguration set that the
    charger took. `seen_at`: when `value` was reported, None as long as it never was.
    """

    key_id: str
    name: str
    supported: bool = True
    value: str | None = None
    readonly: bool | None = None
    seen_at: datetime | None = None
    desired: str | None = None
    desired_at: datetime | None = None
    reboot_required: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        return self.charger_id, self.key_id

    @property
    def drifted(self) -> bool:
        """The charger reported another value after it had taken ours."""
        return (
            self.desired is not None
            and self.desired_at is not None
            and self.seen_at is not None
            and self.seen_at >= self.desired_at
            and self.value != self.desired
        )


class LocalList(DeviceState, frozen=True, kw_only=True):
    """The local authorisation list of one charger: entries as `{idTag: idTagInfo}` in OCPP's JSON.

    `wanted` is what it shall hold, `sent` what it holds by the updates it accepted (None: not known),
    `sent_version` the last version it accepted, `reported_version` its own word (-1: it has no such list).
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

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.charger_id,)


class Reservation(DeviceState, frozen=True, kw_only=True):
    """A reservation the charger accepted. `ended_as`: used, cancelled, replaced; by time it ends without a message.

    `broken_by`: a transaction of somebody else on the reserved connector.
    """

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

    @property
    def key(self) -> tuple[Any, ...]:
        return self.charger_id, self.id


class ChargingProfile(DeviceState, frozen=True, kw_only=True):
    """A charging profile the charger accepted. `profile` is OCPP's csChargingProfiles.

    A profile that came with a remote start has `id_tag` and no `transaction_id` until the start is reported.
    """

    id: int
    connector_id: int
    purpose: str
    stack_level: int
    transaction_id: int | None = None
    id_tag: str | None = None
    profile: dict[str, Any]
    installed_at: datetime
    cleared_at: datetime | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        return self.charger_id, self.id


class Job(DeviceState, frozen=True, kw_only=True):
    """A firmware update or an upload. `kind`: firmware, signed_firmware, diagnostics, log.

    `id` is the id of the command that began it. `status` is OCPP's own word, or Requested before the first.
    `progress` lists `{"status", "at"}`, the oldest first.
    """

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

    @property
    def key(self) -> tuple[Any, ...]:
        return self.charger_id, self.id


class Availability(DeviceState, frozen=True, kw_only=True):
    """What a ChangeAvailability asked of a connector (0: the charger as a whole), and the charger's answer.

    `scheduled`: it will happen when the running transaction ends.
    """

    connector_id: int
    desired: str
    desired_at: datetime
    scheduled: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        return self.charger_id, self.connector_id


class Capability(DeviceState, frozen=True, kw_only=True):
    """Whether a charger knows an action (`TriggerMessage`) or a variety of it (`TriggerMessage/Heartbeat`)."""

    feature: str
    supported: bool
    seen_at: datetime

    @property
    def key(self) -> tuple[Any, ...]:
        return self.charger_id, self.feature


class BridgeNotes(DeviceState, frozen=True, kw_only=True):
    """What a bridge has learned of a charger and asked us to keep: JSON that only the bridge reads."""

    notes: dict[str, Any]
    noted_at: datetime

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.charger_id,)


# --- rows that are only added ------------------------------------------------------------------------------


class CommandOutcome(Struct, frozen=True, kw_only=True):
    """How a command ended. `state`: answered, refused, no_answer, not_sent, failed."""

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
    """A DataTransfer that a charger sent us, and what it was told."""

    charger_id: str
    vendor_id: str
    message_id: str | None
    data: str | None
    status: str
    answer: str | None
    received_at: datetime
