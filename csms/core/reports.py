"""Reports: the facts that adapters learn from chargers. This module is the domain API: an adapter builds a report
and passes it to the ledger's `record()`.

Every report names its charger and the type of the ledger's answer. Energy is in Wh, power in W, times are aware UTC.
A report with `message_id` and `digest` is answered from the database when the same message arrives again (OCPP-J
errata 3.1: a charge point may resend a call with the id it had).
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

R = TypeVar("R")


class Report(Struct, Generic[R], frozen=True, kw_only=True):
    """A fact about one charger; `R` is the type of the ledger's answer, given once the fact is durable."""

    charger_id: str


class Repair(Struct, frozen=True, kw_only=True):
    """Marks a report as the repaired quarantine entry `quarantine_id`, by the operator `author`. `note` says why.

    `transaction_id`: the id that was answered to the charger when its start was quarantined.
    """

    quarantine_id: int
    note: str
    author: str = ""
    transaction_id: int | None = None


class Resendable(Report[R], Generic[R], frozen=True, kw_only=True):
    """A report whose repetition must have no second effect.

    `message_id` is the protocol's id of the message, `digest` a hash of its content. The id alone does not identify
    a message: many chargers count from 1 again after each boot. With `repair` it comes from an operator and may
    correct what is booked; then recording it raises NotBookable if it fits no transaction.
    """

    message_id: str | None = None
    digest: bytes = b""
    repair: Repair | None = None


# --- answers -----------------------------------------------------------------------------------------


class Authorization(Struct, frozen=True, kw_only=True):
    """OCPP 1.6 idTagInfo: Accepted, Blocked, Expired, Invalid or ConcurrentTx."""

    status: str
    expiry_at: datetime | None = None
    parent_id_tag: str | None = None


class Booted(Struct, frozen=True, kw_only=True):
    """`status` is Accepted, Pending or Rejected; `interval_s` the heartbeat interval, or the retry interval.

    `time_zone`: that of times which the charger sends without an offset, as set by an operator.
    """

    status: str
    interval_s: int
    time_zone: str | None = None


class Started(Struct, frozen=True, kw_only=True):
    """`meter_start_wh`: the register at the start as booked, perhaps by an earlier report of the same start."""

    transaction_id: int
    authorization: Authorization
    meter_start_wh: int = 0


class Stopped(Struct, frozen=True, kw_only=True):
    """`transaction_id` None: no transaction fits the stop, which is in quarantine."""

    transaction_id: int | None = None
    authorization: Authorization | None = None


class Kept(Struct, frozen=True, kw_only=True):
    """The answer to `Quarantined` and `Deferred`. A start gets a transaction id, since its charger waits for one.

    `deferred`: the charger is not accepted; False as the answer to `Deferred`: it is by now, so record the report itself.
    `dropped`: the charger's limit is reached and nothing was kept; `full`: this message has reached it.
    """

    transaction_id: int | None = None
    deferred: bool = False
    dropped: bool = False
    full: bool = False


class Held(Struct, frozen=True, kw_only=True):
    """The connection is now the charger's only one. `previous_node`: the node that held the charger until now.

    `vendor` to `firmware_version` are those of the last boot: many chargers reconnect without another one.
    """

    generation: int
    enrollment: str
    previous_node: str | None = None
    vendor: str | None = None
    model: str | None = None
    firmware_version: str | None = None
    time_zone: str | None = None


# --- connection --------------------------------------------------------------------------------------


class Connected(Report[Held], frozen=True, kw_only=True):
    """A charger connected. The newest connection wins: it gets the next generation."""

    node: str
    protocol: str = "ocpp1.6"
    remote_address: str | None = None


class Disconnected(Report[None], frozen=True, kw_only=True):
    """A connection ended. Without effect if a newer generation has taken over."""

    node: str
    generation: int
    reason: str = ""


class Seen(Report[None], frozen=True, kw_only=True):
    """A sign of life that changes nothing else; adapters send at most one a minute."""


# --- what a charger reports --------------------------------------------------------------------------


class Boot(Report[Booted], frozen=True, kw_only=True):
    """OCPP BootNotification, or the identity that a bridge has read.

    `register_scale`: the factor between the Wh that the adapter reports now that it knows the charger and those that it
    reported of the same registers before.
    """

    vendor: str | None = None
    model: str | None = None
    serial_number: str | None = None
    firmware_version: str | None = None
    iccid: str | None = None
    imsi: str | None = None
    meter_type: str | None = None
    meter_serial_number: str | None = None
    register_scale: int = 1


class Authorize(Report[Authorization], frozen=True, kw_only=True):
    id_tag: str


class Status(Report[None], frozen=True, kw_only=True):
    """A connector's status in OCPP 1.6's terms; connector 0 is the charger as a whole."""

    connector_id: int
    status: str
    error_code: str = "NoError"
    info: str | None = None
    vendor_id: str | None = None
    vendor_error_code: str | None = None
    at: datetime | None = None


class Sample(Protocol):
    """One OCPP SampledValue, with the strings that the charger sent."""

    @property
    def value(self) -> str: ...
    @property
    def context(self) -> str | None: ...
    @property
    def format(self) -> str | None: ...
    @property
    def measurand(self) -> str | None: ...
    @property
    def phase(self) -> str | None: ...
    @property
    def location(self) -> str | None: ...
    @property
    def unit(self) -> str | None: ...


class SampledValue(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A `Sample` for adapters that do not receive one."""

    value: str
    context: str | None = None
    format: str | None = None
    measurand: str | None = None
    phase: str | None = None
    location: str | None = None
    unit: str | None = None


class Reading(Struct, frozen=True, kw_only=True):
    """Samples of one time by the charger's clock. `at` None: the charger sent no time, and that of receipt applies."""

    at: datetime | None
    samples: Sequence[Sample]


class RentalTerms(Struct, frozen=True, kw_only=True):
    """How a rental is paid for. `dynamic`: debited with each reading, not once at its end.

    `min_balance`, in the major unit, must be available before it begins (None: the price of 15 min and 100 Wh).
    A rental without energy is free up to `free_s` seconds.
    """

    dynamic: bool = False
    min_balance: Decimal | None = None
    free_s: int = 0


class Start(Resendable[Started], frozen=True, kw_only=True):
    """A transaction began. `key` identifies the start when the charger reports it again.

    `meter_wh` None: the charger sent no usable register, so the first reading or the connector's last register is
    taken. `account_id`: the account that pays, if it exists. `anomalies`: what the adapter found, such as `meter_start_estimated`.
    """

    connector_id: int
    id_tag: str
    key: str
    meter_wh: int | None
    at: datetime | None = None
    reservation_id: int | None = None
    anomalies: tuple[str, ...] = ()
    account_id: str | None = None
    terms: RentalTerms | None = None


class BalanceLeft(Struct, frozen=True, kw_only=True):
    """The balance of the account that pays, if the transaction ended now. Below 0 it is a debt."""

    balance_minor: int
    currency: str


class Meter(Resendable[BalanceLeft | None], frozen=True, kw_only=True):
    """Readings, of the transaction `transaction_id` or, where that is unknown, of the running one.

    A repeated reading is recognized by time and samples; `message_id` is needed only where a time is missing.
    `published` False: stored and kept as the connector's register, without an event. The answer is None unless an
    account pays.
    """

    connector_id: int
    readings: Sequence[Reading]
    transaction_id: int | None = None
    published: bool = True


class Stop(Resendable[Stopped], frozen=True, kw_only=True):
    """A transaction ended. `meter_wh` None: the charger sent no usable register.

    `session_register`: the charger's register counts from 0 in each session, and its start may report another value.
    `trusted_id` False: the charger is known to name transactions that ended long ago. `inferred`: the adapter did not
    learn of the end itself and reports what it knew last. `anomalies` come on top of those of the start.
    """

    transaction_id: int | None
    meter_wh: int | None
    at: datetime | None = None
    reason: str = "Local"
    id_tag: str | None = None
    readings: Sequence[Reading] = ()
    session_register: bool = False
    trusted_id: bool = True
    inferred: bool = False
    anomalies: tuple[str, ...] = ()


class Reconcile(Report[bool], frozen=True, kw_only=True):
    """No stop came for a transaction, though its connector is free again or its charger has booted since.

    The fields are the evidence found. If any of it has changed in the meantime the answer is False, without effect.
    """

    transaction_id: int
    free_since: datetime | None = None
    booted_at: datetime | None = None
    reading_at: datetime | None = None


class SecurityEvent(Resendable[None], frozen=True, kw_only=True):
    """An event of the charger's security log (OCPP 1.6 security whitepaper, A04). `at` by the charger's clock."""

    type: str
    tech_info: str | None = None
    at: datetime | None = None


class Quarantined(Resendable[Kept], frozen=True, kw_only=True):
    """A message was acknowledged but could not be decoded; an operator repairs the entry."""

    action: str
    payload: bytes
    error: str


class Deviation(Struct, frozen=True, kw_only=True):
    """A difference from OCPP's schema that was understood all the same. `detail` is an example."""

    field: str
    kind: str
    detail: str = ""


class Deviated(Report[None], frozen=True, kw_only=True):
    action: str
    deviations: Sequence[Deviation]


class Noted(Report[None], frozen=True, kw_only=True):
    """What an adapter needs to know of a charger after its own restart, in JSON."""

    notes: dict[str, Any]


class Rented(Struct, frozen=True, kw_only=True):
    """Whether the account may rent: Accepted (and money is held), NoAccount, Blocked, NoMoney, RentsElsewhere,
    Occupied, Inoperative, OtherCurrency."""

    status: str
    required_minor: int = 0
    available_minor: int = 0
    currency: str | None = None


class Rent(Report[Rented], frozen=True, kw_only=True):
    """An account asks to rent. Money is held until `Start`, `Unrented`, or until `holds_for_s` seconds have passed.

    `account_required` False: an unknown account may rent, without a hold.
    """

    connector_id: int
    account_id: str
    account_required: bool = True
    terms: RentalTerms = RentalTerms()
    holds_for_s: int = 60


class Unrented(Report[None], frozen=True, kw_only=True):
    """The requested rental did not begin; its hold is released."""

    account_id: str


class Commanded(Report[None], frozen=True, kw_only=True):
    """A command ended. May be repeated without a second effect.

    `outcome`: answered (`answer` is the charger's payload), refused (a CALLERROR: `{"code", "description",
    "details"}`), no_answer (the charger may have carried it out), not_sent, failed. `late`: the answer came after
    no_answer had been recorded. `answer` and `payload` are OCPP's JSON.
    """

    id: str
    action: str
    payload: dict[str, Any]
    outcome: str
    answer: dict[str, Any] | None = None
    error: str | None = None
    sent_at: datetime
    requested_by: str = "csms"
    late: bool = False


class Progress(Report[None], frozen=True, kw_only=True):
    """Progress of a firmware update or an upload. `kind`: firmware, signed_firmware, diagnostics, log."""

    kind: str
    status: str
    request_id: int | None = None


class Transferred(Struct, frozen=True, kw_only=True):
    """The answer to a DataTransfer: Accepted, Rejected, UnknownMessageId, UnknownVendorId."""

    status: str
    data: str | None = None


class DataTransferred(Resendable[Transferred], frozen=True, kw_only=True):
    """Vendor data from a charger, with the answer that its handler gave."""

    vendor_id: str
    vendor_message_id: str | None = None
    data: str | None = None
    answer: Transferred
