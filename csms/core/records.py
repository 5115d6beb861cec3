"""Stored records: one immutable value per table row. Fields are named as the columns; a test compares them."""

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from csms.core.pricing import Bill
from csms.core.session_register import SessionRegister
from csms.core.tariffs import Tariff


class Charger(Struct, frozen=True, kw_only=True):
    """Identity and settings of a charger; changed rarely."""

    id: str
    protocol: str = "ocpp1.6"
    enrollment: str = "Accepted"
    vendor: str | None = None
    model: str | None = None
    serial_number: str | None = None
    firmware_version: str | None = None
    iccid: str | None = None
    imsi: str | None = None
    meter_type: str | None = None
    meter_serial_number: str | None = None
    heartbeat_interval_s: int | None = None
    time_zone: str | None = None
    tariff_id: str | None = None
    group_id: str | None = None
    max_power_w: int | None = None
    booted_at: datetime | None = None


class ChargerState(Struct, frozen=True, kw_only=True):
    """The frequently changed row of a charger. Its row lock guards every change to anything of the charger."""

    charger_id: str
    event_seq: int = 0
    generation: int = 0
    online: bool = False
    node: str | None = None
    remote_address: str | None = None
    connected_at: datetime | None = None
    last_seen_at: datetime | None = None
    deferred: bool = False  # messages in quarantine wait until an operator accepts the charger


class Connector(Struct, frozen=True, kw_only=True):
    """Last reported status and last meter reading of one connector (0 = the charger as a whole).

    `register`: that of the session `reading_transaction_id`, which runs or was the last one.
    """

    charger_id: str
    connector_id: int
    status: str | None = None
    error_code: str = "NoError"
    info: str | None = None
    vendor_id: str | None = None
    vendor_error_code: str | None = None
    status_at: datetime | None = None
    status_recorded_at: datetime | None = None
    free_since: datetime | None = None
    reading_transaction_id: int | None = None
    reading_at: datetime | None = None
    energy_wh: int | None = None
    power_w: int | None = None
    soc_percent: float | None = None
    newest_reading_at: datetime | None = None
    register: SessionRegister | None = None

    def session_wh(self, transaction_id: int) -> int | None:
        """Return the energy in Wh that a running session has drawn so far. None: no reading of it is known."""
        own = self.reading_transaction_id == transaction_id and self.register is not None
        return self.register.energy_wh if own and self.register and self.register.readings else None


class Transaction(Struct, frozen=True, kw_only=True):
    """A charging session. Open while `stopped_at` is None.

    `started_at` and `stopped_at` are by the charger's clock, `start_received_at` and `stop_received_at` by csms's;
    `accounting_at` decides the day and month. `meter_start_wh` and `meter_stop_wh` are as the charger reported them;
    `energy_wh` is what the evidence shows. `billing`: billed, held (no cost is published until an operator releases
    it) or void (a cost of zero); None while open. `register`: at the start, and again at the end.
    """

    id: int
    charger_id: str
    connector_id: int
    key: str
    id_tag: str
    parent_id_tag: str | None = None
    reservation_id: int | None = None
    authorization_status: str
    authorization_expiry_at: datetime | None = None
    meter_start_wh: int
    started_at: datetime
    start_received_at: datetime
    clock_suspect: bool = False
    tariff: Tariff
    meter_stop_wh: int | None = None
    stopped_at: datetime | None = None
    stop_received_at: datetime | None = None
    stop_reason: str | None = None
    stop_id_tag: str | None = None
    energy_wh: int | None = None
    energy_source: str | None = None
    duration_s: Decimal | None = None
    inferred: bool = False
    revision: int = 0
    cost_minor: int | None = None
    cost: Decimal | None = None
    bill: Bill | None = None  # None: it follows from tariff, energy and duration
    anomalies: tuple[str, ...] = ()
    account_id: str | None = None
    accounting_at: datetime
    billing: str | None = None
    held_because: tuple[str, ...] = ()
    register: SessionRegister | None = None

    @property
    def open(self) -> bool:
        return self.stopped_at is None


class BilledState(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a revision of a transaction is billed by."""

    meter_start_wh: int
    meter_stop_wh: int | None
    started_at: datetime
    stopped_at: datetime | None
    energy_wh: int | None
    energy_source: str | None
    duration_s: Decimal | None
    cost_minor: int | None
    billing: str | None
    anomalies: tuple[str, ...] = ()
    held_because: tuple[str, ...] = ()


class TransactionRevision(Struct, frozen=True, kw_only=True, gc=False):
    """A revision of a transaction that was revised: who made it, when and why, and what it is billed by.

    A transaction that was never revised has none.
    """

    transaction_id: int
    revision: int
    recorded_at: datetime
    author: str
    note: str | None
    state: BilledState


class Tag(Struct, frozen=True, kw_only=True):
    """A known idTag. idTags are compared without regard to case (OCPP 1.6: CiString20)."""

    id_tag: str
    status: str = "Accepted"
    expiry_at: datetime | None = None
    parent_id_tag: str | None = None
    max_active_transactions: int | None = None
    tariff_id: str | None = None


class Account(Struct, frozen=True, kw_only=True):
    """A user who pays from a balance, in the currency's minor unit. The balance is the sum of the account's entries.

    Ids are compared with regard to case. A balance below zero is a debt.
    """

    id: str
    currency: str
    balance_minor: int = 0
    blocked: bool = False


class Rental(Struct, frozen=True, kw_only=True):
    """What an account pays for one transaction. `state`: held (requested), running, ended, released (did not begin).

    `debited_minor` is what the transaction has cost the account so far, in `debits` entries. `origin`: csms, or
    direct if the charger was not started through csms.
    """

    id: int
    account_id: str
    charger_id: str
    connector_id: int
    origin: str
    state: str
    hold_minor: int
    dynamic: bool
    free_s: int
    held_at: datetime
    expires_at: datetime | None = None
    transaction_id: int | None = None
    debited_minor: int = 0
    debits: int = 0
    ended_at: datetime | None = None

    @property
    def open(self) -> bool:
        return self.ended_at is None


class AccountEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One change of a balance: never updated, never deleted. `key` is unique.

    `kind`: top_up, debit, refund, correction. `amount_minor` is the change, `balance_minor` the balance after it.
    """

    account_id: str
    key: str
    kind: str
    amount_minor: int
    balance_minor: int
    transaction_id: int | None
    note: str | None
    recorded_at: datetime


class StoredReading(Struct, frozen=True, kw_only=True, gc=False):
    """One MeterValue: the samples as JSON, with the values derived from them.

    `weight`: how it counted for the register of its session (csms/core/readings.py); None: not known, of an older release.
    """

    charger_id: str
    connector_id: int
    transaction_id: int | None
    sampled_at: datetime
    received_at: datetime
    digest: bytes
    energy_wh: int | None
    power_w: int | None
    soc_percent: float | None
    samples: str
    weight: int | None = None


class StoredStatus(Struct, frozen=True, kw_only=True, gc=False):
    """One StatusNotification, whether or not it changed anything."""

    id: int
    charger_id: str
    connector_id: int
    status: str
    error_code: str
    info: str | None
    vendor_id: str | None
    vendor_error_code: str | None
    reported_at: datetime | None
    recorded_at: datetime


class Answered(Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a resendable message: a repetition gets the same."""

    charger_id: str
    message_id: str
    digest: bytes
    answer: bytes
    recorded_at: datetime


class QuarantineEntry(Struct, frozen=True, kw_only=True, gc=False):
    """A message that was acknowledged but could not be booked.

    `enrollment`: Pending or Rejected, if it is here only because its charger was not accepted (a deferred message).
    `start_key`: of such a start, what identifies it when the charger sends it again.
    """

    charger_id: str
    action: str
    message_id: str | None
    digest: bytes
    payload: bytes
    error: str
    transaction_id: int | None
    received_at: datetime
    enrollment: str | None = None
    start_key: str | None = None


class DeferredMessage(Struct, frozen=True, kw_only=True):
    """A deferred message that can be booked now. `payload`: as it came. `transaction_id`: what its start was answered."""

    id: int
    charger_id: str
    action: str
    message_id: str | None
    digest: bytes
    payload: bytes
    transaction_id: int | None
    received_at: datetime


class DeferredStart(Struct, frozen=True, kw_only=True):
    """The newest deferred start with one key. `stopped`: a deferred stop names its transaction."""

    transaction_id: int
    message_id: str | None
    stopped: bool = False


class DeferredUsage(Struct, frozen=True, kw_only=True):
    """How many deferred messages a charger has, and their size."""

    messages: int = 0
    size_bytes: int = 0


class QuarantineResolution(Struct, frozen=True, kw_only=True, gc=False):
    """How a quarantine entry was resolved."""

    id: int
    resolution: str
    resolved_at: datetime


class DeviationCount(Struct, frozen=True, kw_only=True, gc=False):
    """How often a charger's messages deviated from the protocol in one way."""

    charger_id: str
    action: str
    field: str
    kind: str
    detail: str
    count: int
    last_at: datetime


class StoredSecurityEvent(Struct, frozen=True, kw_only=True, gc=False):
    """One event of a charger's security log."""

    charger_id: str
    type: str
    tech_info: str | None
    reported_at: datetime | None
    recorded_at: datetime


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """A business event: rendered once, stored with the bytes that are published."""

    charger_id: str
    seq: int
    event_id: str
    event_type: str
    topic: str
    body: bytes
    transaction_id: int | None
    recorded_at: datetime
    history_epoch: int = 0  # how often the database had been restored


class Frame(Struct, frozen=True, kw_only=True, gc=False):
    """A raw frame as it crossed the wire. `kind`: call, result or error."""

    charger_id: str
    at: datetime
    outgoing: bool
    kind: str
    action: str | None
    message_id: str | None
    frame: bytes
