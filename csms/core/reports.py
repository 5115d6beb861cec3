"""What chargers tell us. This page is the domain API: edges build a report and `record()` it, nothing else.

Every report names its charger and the type of its answer. Energy is Wh, power W, time aware UTC.
A report with `message_id` and `digest` is answered from the store when the same message comes again
(OCPP-J errata 3.1: a charge point may resend a call under its old id).
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

R = TypeVar("R")


class Report(Struct, Generic[R], frozen=True, kw_only=True):
    """A fact about one charger; `R` is what the ledger answers once the fact is durable."""

    charger_id: str


class Repair(Struct, frozen=True, kw_only=True):
    """An operator books what lies in quarantine under `quarantine_id`, repaired; `note` says who and why.

    `transaction_id`: the id that its charger was given when the start could not be understood.
    """

    quarantine_id: int
    note: str
    transaction_id: int | None = None


class Resendable(Report[R], Generic[R], frozen=True, kw_only=True):
    """A report whose repetition must have no second effect.

    `message_id` is the protocol's own id of the message, `digest` a hash of its content. Ids alone prove
    nothing: many charge points count from 1 again after every boot.
    With `repair` it comes from an operator: it may correct what is booked. Raises NotBookable.
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
    """`status` is Accepted, Pending or Rejected; `interval_s` the heartbeat (or retry) interval.

    `time_zone` is what an operator has set for times that come without one.
    """

    status: str
    interval_s: int
    time_zone: str | None = None


class Started(Struct, frozen=True, kw_only=True):
    """`meter_start_wh`: the register that the transaction was booked with, perhaps by an earlier report of it."""

    transaction_id: int
    authorization: Authorization
    meter_start_wh: int = 0


class Stopped(Struct, frozen=True, kw_only=True):
    """`transaction_id` is None when no transaction could be found: the record is in quarantine then."""

    transaction_id: int | None = None
    authorization: Authorization | None = None


class Kept(Struct, frozen=True, kw_only=True):
    """Kept in quarantine. A start gets a transaction id even so: its charge point waits for one."""

    transaction_id: int | None = None


class Held(Struct, frozen=True, kw_only=True):
    """This connection is now the charger's only one. `previous_node` held it before, if any did.

    The rest is what the charger's last boot said: many reconnect without another one.
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
    """A charger reached us. The newest connection wins: it gets the next generation."""

    node: str
    protocol: str = "ocpp1.6"
    remote_address: str | None = None


class Disconnected(Report[None], frozen=True, kw_only=True):
    """A connection ended. Nothing changes when a newer generation has taken over."""

    node: str
    generation: int
    reason: str = ""


class Seen(Report[None], frozen=True, kw_only=True):
    """A sign of life that changes nothing else; edges send one at most once a minute."""


# --- what a charger reports --------------------------------------------------------------------------


class Boot(Report[Booted], frozen=True, kw_only=True):
    """OCPP BootNotification, or the identity a bridge has read."""

    vendor: str | None = None
    model: str | None = None
    serial_number: str | None = None
    firmware_version: str | None = None
    iccid: str | None = None
    imsi: str | None = None
    meter_type: str | None = None
    meter_serial_number: str | None = None


class Authorize(Report[Authorization], frozen=True, kw_only=True):
    id_tag: str


class Status(Report[None], frozen=True, kw_only=True):
    """A connector's status in OCPP 1.6 words; connector 0 is the charger as a whole."""

    connector_id: int
    status: str
    error_code: str = "NoError"
    info: str | None = None
    vendor_id: str | None = None
    vendor_error_code: str | None = None
    at: datetime | None = None


class Sample(Protocol):
    """One OCPP SampledValue, strings as the charger gave them."""

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
    """A `Sample` for edges that do not get one from the wire."""

    value: str
    context: str | None = None
    format: str | None = None
    measurand: str | None = None
    phase: str | None = None
    location: str | None = None
    unit: str | None = None


class Reading(Struct, frozen=True, kw_only=True):
    """Samples taken at one moment of the charger's clock (None: it gave none, so the moment of receipt)."""

    at: datetime | None
    samples: Sequence[Sample]


class RentalTerms(Struct, frozen=True, kw_only=True):
    """How a rental is paid for. `dynamic`: debited as it goes on, not once at its end.

    `min_balance` (None: the price of 15 minutes and 100 Wh) is what must be available before it begins;
    a rental without any energy is free up to `free_s`. Money in the major unit.
    """

    dynamic: bool = False
    min_balance: Decimal | None = None
    free_s: int = 0


class Start(Resendable[Started], frozen=True, kw_only=True):
    """Energy may flow. `key` is what the charger repeats when it reports the same start again.

    `meter_wh` None: the charger gave no usable register, the connector's last one must do. `account_id`: whose
    account pays, if there is such an account (csms/core/accounts.py).
    `anomalies`: what the edge knows to be odd about it, such as `meter_start_estimated`.
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
    """What would be left of the balance that pays for a transaction, were it to end now: less than 0 is a debt."""

    balance_minor: int
    currency: str


class Meter(Resendable[BalanceLeft | None], frozen=True, kw_only=True):
    """Readings, of a transaction if `transaction_id` says so (an id we do not know is resolved or kept).

    A reading is known again by its time and samples; `message_id` is needed only where a time is missing.
    `published` False: kept as the connector's register, but no news to anybody. The answer: None unless an account pays.
    """

    connector_id: int
    readings: Sequence[Reading]
    transaction_id: int | None = None
    published: bool = True


class Stop(Resendable[Stopped], frozen=True, kw_only=True):
    """A transaction ended. `meter_wh` None: the charger gave no usable register.

    `session_register`: this charger's register counts from 0 in each session, whatever the start said.
    `trusted_id` False: this charger is known to name transactions that ended long ago. `inferred`: the edge did not
    hear of the end itself; what it heard last must do.
    `anomalies`: as a start's; those of the start are not kept unless they are repeated here.
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


class StoredStop(Struct, frozen=True, kw_only=True):
    """What of a stop can be read again from quarantine; its readings are kept as they came."""

    transaction_id: int | None = None
    meter_wh: int | None = None
    at: datetime | None = None
    reason: str = "Local"
    id_tag: str | None = None


class Reconcile(Report[bool], frozen=True, kw_only=True):
    """Nobody has ended this transaction, though its connector is free again or its charger has booted since.

    The evidence as it was found; if any of it has changed meanwhile, nothing happens and the answer is False.
    """

    transaction_id: int
    free_since: datetime | None = None
    booted_at: datetime | None = None
    reading_at: datetime | None = None


class SecurityEvent(Resendable[None], frozen=True, kw_only=True):
    """Something of the charger's security log (OCPP white paper, A04). `at` by the charger's clock."""

    type: str
    tech_info: str | None = None
    at: datetime | None = None


class Quarantined(Resendable[Kept], frozen=True, kw_only=True):
    """Something acknowledged but not understood; an operator sees it, repairs it and replays it."""

    action: str
    payload: bytes
    error: str


class Deviation(Struct, frozen=True, kw_only=True):
    """One departure from the protocol that was repaired: where, which kind, and an example."""

    field: str
    kind: str
    detail: str = ""


class Deviated(Report[None], frozen=True, kw_only=True):
    action: str
    deviations: Sequence[Deviation]


class Noted(Report[None], frozen=True, kw_only=True):
    """What an edge wants to know of this charger after its own restart, in JSON."""

    notes: dict[str, Any]


# --- accounts ----------------------------------------------------------------------------------------


class Rented(Struct, frozen=True, kw_only=True):
    """May this user rent? Accepted (and money is held), NoAccount, Blocked, NoMoney, RentsElsewhere, Occupied,
    Inoperative, OtherCurrency."""

    status: str
    required_minor: int = 0
    available_minor: int = 0
    currency: str | None = None


class Rent(Report[Rented], frozen=True, kw_only=True):
    """A user wants to rent: money is held until the start is reported, `Unrented`, or `holds_for_s` have passed.

    `account_required` False: somebody without an account may, too.
    """

    connector_id: int
    account_id: str
    account_required: bool = True
    terms: RentalTerms = RentalTerms()
    holds_for_s: int = 60


class Unrented(Report[None], frozen=True, kw_only=True):
    """The rental that was asked for did not begin; what was held is free again."""

    account_id: str


# --- what came of our commands -----------------------------------------------------------------------


class Commanded(Report[None], frozen=True, kw_only=True):
    """A command ended, one way or another. Safe to repeat.

    `outcome`: answered (`answer` is the charger's payload), refused (a CALLERROR: `{"code", "description",
    "details"}`), no_answer (it may have acted on it), not_sent, failed. `late`: the answer came after
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
    """How a firmware update or an upload goes on. `kind`: firmware, signed_firmware, diagnostics, log."""

    kind: str
    status: str
    request_id: int | None = None


class Transferred(Struct, frozen=True, kw_only=True):
    """The answer to a DataTransfer: Accepted, Rejected, UnknownMessageId, UnknownVendorId."""

    status: str
    data: str | None = None


class DataTransferred(Resendable[Transferred], frozen=True, kw_only=True):
    """Vendor data from a charger, with the answer that its handler has for it."""

    vendor_id: str
    vendor_message_id: str | None = None
    data: str | None = None
    answer: Transferred
