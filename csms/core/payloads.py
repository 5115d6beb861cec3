"""The keys of every business event, with their meanings: docs/schemas and docs/asyncapi.json are written from these.

The keys that the customer specified come first; others are only added. Optional keys that are unknown are left out,
never null; a true zero is sent. Values whose number may grow (a reason, a pricing model) are plain text with examples:
an enumeration would break consumers when it grows.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from csms.core.pricing import Component, QuantityUnit
from csms.core.units import Measurand

_MOMENT = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?Z$"

EventTimestamp = Annotated[
    str,
    Meta(
        description="RFC 3339, UTC, `Z`; milliseconds only when not zero.",
        pattern=_MOMENT,
        examples=["2023-12-07T10:15:30Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
ClientId = Annotated[
    str, Meta(description="The charger's identity, as it stands.", examples=["charge-point-001"])
]
TransactionId = Annotated[
    int, Meta(description="Given by csms, never used again.", ge=1, le=2**31 - 1, examples=[123456])
]
ConnectorId = Annotated[int, Meta(description="From 1; 0 is the charger as a whole.", ge=0)]
EventIdTag = Annotated[str, Meta(description="Who charges.", examples=["user123"])]
RegisterWh = Annotated[int, Meta(description="The meter's register in Wh.")]
EnergyKwh = Annotated[float, Meta(description="kWh, at most three decimals.", examples=[24.0])]
PowerKw = Annotated[float, Meta(description="kW, at most three decimals.", examples=[7.2])]
Minutes = Annotated[float, Meta(description="Minutes, two decimals, rounded half up.", ge=0, examples=[90.0])]
Seconds = Annotated[int, Meta(description="Whole seconds.", ge=0)]
EventCurrency = Annotated[str, Meta(description="ISO 4217.", pattern="^[A-Z]{3}$", examples=["USD"])]
EventMoney = Annotated[
    float, Meta(description="Rounded once, half up, to what the currency has.", examples=[2.88])
]
TariffId = Annotated[str, Meta(description="The tariff the transaction began with.")]
Revision = Annotated[
    int, Meta(description="1, and one more for each correction: of one transaction the highest holds.", ge=1)
]
Billing = Annotated[
    str,
    Meta(
        description="`billed`; `held`: no cost holds until an operator releases it; `void`: it costs nothing.",
        examples=["billed", "held", "void"],
    ),
]
Anomalies = Annotated[
    tuple[str, ...],
    Meta(
        description="What contradicts the session's figures (docs/energy.md).", examples=[["register_reset"]]
    ),
]
HeldBecause = Annotated[
    tuple[str, ...],
    Meta(description="Why an operator must look first.", examples=[["implausible_meter_stop"]]),
]
AccountingAt = Annotated[
    EventTimestamp,
    Meta(description="Decides day and month: the charger's time, or csms's where that is suspect."),
]
HistoryEpoch = Annotated[
    int,
    Meta(
        description="How often the database was restored from a backup; absent for never. No `seq` of an earlier epoch"
        " counts against those of this one.",
        ge=1,
    ),
]
NodeName = Annotated[str, Meta(description="The csms node that has (or had) the connection.")]


class Payload(Struct, rename="camel", kw_only=True):
    """Optional keys that are unknown are left out, never null; a true zero is sent."""


class StartedPayload(Payload, kw_only=True):
    """A transaction began."""

    transaction_id: TransactionId
    connector_id: ConnectorId
    id_tag: EventIdTag
    meter_start: RegisterWh
    start_time: EventTimestamp
    status: Literal["started"] = "started"
    parent_id_tag: Annotated[str, Meta(description="The group the idTag belongs to.")] | UnsetType = UNSET
    reservation_id: Annotated[int, Meta(description="The reservation this start used.")] | UnsetType = UNSET
    tariff_id: TariffId | UnsetType = UNSET
    authorization_status: (
        Annotated[
            str,
            Meta(
                description="When it was not Accepted: energy may have flowed all the same.",
                examples=["Invalid", "Blocked", "Expired", "ConcurrentTx"],
            ),
        ]
        | UnsetType
    ) = UNSET
    clock_suspect: (
        Annotated[bool, Meta(description="The charger's clock is not to be believed.")] | UnsetType
    ) = UNSET
    received_time: EventTimestamp | UnsetType = UNSET


class CompletedPayload(Payload, kw_only=True):
    """A transaction ended, also when csms had to end it itself; as `updated`, a correction of that."""

    transaction_id: TransactionId
    connector_id: ConnectorId
    id_tag: EventIdTag
    meter_start: RegisterWh
    meter_stop: RegisterWh
    start_time: EventTimestamp
    stop_time: EventTimestamp
    energy_used: EnergyKwh
    duration: Minutes
    reason: Annotated[str, Meta(description="OCPP's word, or the charger's.", examples=["Local", "Remote"])]
    status: Literal["completed"] = "completed"
    duration_seconds: Seconds
    stop_id_tag: Annotated[str, Meta(description="Who ended it.")] | UnsetType = UNSET
    energy_source: (
        Annotated[
            str,
            Meta(
                description="What the energy was derived from.",
                examples=["meter_stop", "last_reading", "operator", "none"],
            ),
        ]
        | UnsetType
    ) = UNSET
    inferred: Annotated[bool, Meta(description="csms ended it: the charger never said so.")] | UnsetType = (
        UNSET
    )
    anomaly: (
        Annotated[str, Meta(description="What was odd about it.", examples=["meter_decreased"])] | UnsetType
    ) = UNSET
    revision: Revision = 1
    billing: Billing = "billed"
    anomalies: Anomalies | UnsetType = UNSET
    held_because: HeldBecause | UnsetType = UNSET
    accounting_at: AccountingAt | UnsetType = UNSET


class MeterReadingPayload(Payload, kw_only=True):
    """One moment a charger has measured."""

    transaction_id: TransactionId | UnsetType = UNSET
    connector_id: ConnectorId
    timestamp: EventTimestamp
    measurands: Annotated[
        dict[str, Measurand],
        Meta(description="By OCPP's measurand, with `@Location` behind it away from the outlet."),
    ]
    current_power: PowerKw | UnsetType = UNSET
    total_energy: (
        Annotated[float, Meta(description="kWh: the meter's register, not the session.")] | UnsetType
    ) = UNSET
    session_energy: (
        Annotated[float, Meta(description="kWh since the transaction began.", ge=0)] | UnsetType
    ) = UNSET
    soc: Annotated[float, Meta(description="State of charge in percent.")] | UnsetType = UNSET


class StatusChangedPayload(Payload, kw_only=True):
    """A connector's status or error code is another than before."""

    connector_id: ConnectorId
    status: Annotated[str, Meta(description="OCPP's ChargePointStatus.", examples=["Charging"])]
    previous_status: Annotated[
        str,
        Meta(description="What the charger reported before; `Unknown` at first.", examples=["Preparing"]),
    ]
    transaction_id: TransactionId | UnsetType = UNSET
    error_code: Annotated[str, Meta(description="OCPP's ChargePointErrorCode.", examples=["NoError"])]
    info: str | UnsetType = UNSET
    vendor_id: str | UnsetType = UNSET
    vendor_error_code: str | UnsetType = UNSET
    reported_at: EventTimestamp | UnsetType = UNSET


class PayloadPart(Struct, rename="camel", kw_only=True):
    """Stands within a payload, by the same rules."""


class CostLine(PayloadPart, kw_only=True):
    """One component of a cost; all of them add up to the event's `amountMinor`."""

    component: Annotated[
        Component,
        Meta(
            description=(
                "What is charged for; `minimum` is what a session was short of the least it costs, `maximum`"
                " (negative) what it was over the most, `tax` the tax where rates are without it."
            )
        ),
    ]
    band: Annotated[str, Meta(description="The tariff's band; left out for its base rates.")] | UnsetType = (
        UNSET
    )
    quantity: (
        Annotated[
            float,
            Meta(
                description=(
                    "Energy, or minutes rounded to two decimals; the amount is computed from what was not rounded."
                )
            ),
        ]
        | UnsetType
    ) = UNSET
    unit: Annotated[QuantityUnit, Meta(description="Of the quantity.")] | UnsetType = UNSET
    rate: Annotated[float, Meta(description="Price per unit; for `tax` per cent.")] | UnsetType = UNSET
    amount_minor: Annotated[int, Meta(description="This component's share in minor units.")]


class CostTax(PayloadPart, kw_only=True):
    """The tax in a cost; left out when the tariff says nothing of tax."""

    percent: Annotated[float, Meta(description="The rate.", ge=0)]
    included: Annotated[
        bool,
        Meta(
            description="Whether the tariff's rates have it in them; if not, the breakdown has a line for it."
        ),
    ]
    amount_minor: Annotated[int, Meta(description="The tax in the event's `amountMinor`, in minor units.")]
    net_minor: Annotated[int, Meta(description="What remains without it.")]


class SessionCostPayload(Payload, kw_only=True):
    """What a transaction costs. Book `amountMinor`; of one transaction the highest `revision` holds."""

    transaction_id: TransactionId
    connector_id: ConnectorId
    id_tag: EventIdTag
    start_time: EventTimestamp
    end_time: EventTimestamp
    energy_consumed: EnergyKwh
    duration: Minutes
    estimated_cost: EventMoney
    currency: EventCurrency
    pricing_model: Annotated[
        str,
        Meta(
            description="How the price was made.",
            examples=["energy_based", "time_based", "energy_and_time", "flat"],
        ),
    ]
    energy_rate: Annotated[
        float,
        Meta(
            description=(
                "Per kWh; with bands of different rates what a kWh came to on average, rounded to six decimals."
            ),
            ge=0,
            examples=[0.12],
        ),
    ]
    time_rate: Annotated[
        float, Meta(description="Per minute; with bands as `energyRate`.", ge=0, examples=[0.0])
    ]
    amount_minor: Annotated[
        int,
        Meta(
            description="The amount in the currency's smallest unit: 288 for 2.88 USD. Book this.",
            examples=[288],
        ),
    ]
    session_fee: Annotated[float, Meta(description="Per session.", ge=0)] | UnsetType = UNSET
    tariff_id: TariffId | UnsetType = UNSET
    revision: Revision = 1
    tariff_version: Annotated[int, Meta(description="The tariff's version, fixed at the start.", ge=1)] = 1
    breakdown: Annotated[
        tuple[CostLine, ...], Meta(description="The components; they add up to `amountMinor`.")
    ] = ()
    tax: CostTax | UnsetType = UNSET
    void: (
        Annotated[bool, Meta(description="An operator made the bill void: the amount is 0.")] | UnsetType
    ) = UNSET
    accounting_at: AccountingAt | UnsetType = UNSET


class CostHeldPayload(Payload, kw_only=True):
    """A cost that must not be booked: its figures are implausible. `session_cost` follows when an operator releases it."""

    transaction_id: TransactionId
    connector_id: ConnectorId
    id_tag: EventIdTag
    start_time: EventTimestamp
    end_time: EventTimestamp
    energy_consumed: EnergyKwh
    duration: Minutes
    estimated_cost: EventMoney
    currency: EventCurrency
    amount_minor: Annotated[int, Meta(description="What the bill would be, in minor units.")]
    held_because: HeldBecause
    anomalies: Anomalies = ()
    revision: Revision = 1
    accounting_at: AccountingAt | UnsetType = UNSET


class OrphanStopPayload(Payload, kw_only=True):
    """A stop of an unknown transaction: acknowledged, kept in quarantine, never billed by itself."""

    transaction_id: Annotated[int, Meta(description="As the charger gave it.")] | UnsetType = UNSET
    meter_stop: RegisterWh | UnsetType = UNSET
    stop_time: EventTimestamp
    reason: str
    id_tag: EventIdTag | UnsetType = UNSET


class ConnectedPayload(Payload, kw_only=True):
    """A charger reached us. Again without `disconnected` between: the connection before was lost unnoticed."""

    protocol: Annotated[str, Meta(description="What it speaks.", examples=["ocpp1.6", "coin_op"])]
    node: NodeName
    remote_address: Annotated[str, Meta(description="Where it called from.")] | UnsetType = UNSET


class DisconnectedPayload(Payload, kw_only=True):
    """Its connection ended, and there is no newer one."""

    node: NodeName
    reason: Annotated[str, Meta(description="Why, as far as known.")] | UnsetType = UNSET
    duration_seconds: Annotated[int, Meta(description="How long it was connected.", ge=0)] | UnsetType = UNSET


class BootedPayload(Payload, kw_only=True):
    """A charger said who it is (OCPP: BootNotification)."""

    enrollment: Annotated[str, Meta(description="What it was answered.", examples=["Accepted", "Pending"])]
    vendor: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    serial_number: str | UnsetType = UNSET
    firmware_version: str | UnsetType = UNSET


class QuarantinedPayload(Payload, kw_only=True):
    """A message was acknowledged but could not be booked: `GET /api/v1/quarantine` has it, an operator must look."""

    action: Annotated[str, Meta(description="OCPP's action.", examples=["StopTransaction"])]
    error: Annotated[str, Meta(description="Why it could not be booked.")]
    received_time: EventTimestamp
    message_id: str | UnsetType = UNSET
    transaction_id: Annotated[int, Meta(description="The one concerned, if any is.")] | UnsetType = UNSET


class Envelope(Struct, rename="camel", kw_only=True):
    """What every business event is wrapped in. Keys may be added: ignore those you do not know."""

    timestamp: Annotated[EventTimestamp, Meta(description="When csms recorded the fact (RFC 3339, UTC).")]
    client_id: ClientId
    event_type: Annotated[str, Meta(description="The topic's last level.")]
    event_id: Annotated[
        str,
        Meta(
            description="Unique; the type and 19 digits without a meaning. Deduplicate by it.",
            pattern="^[a-z_]+_[0-9]{19}$",
            examples=["started_1701944130000004711"],
        ),
    ]
    payload: Any
    seq: Annotated[int, Meta(description="Counts this charger's events from 1, without a gap.", ge=1)]
    schema_version: Annotated[
        str,
        Meta(
            description="Minor: keys were added; major: something broke.",
            pattern=r"^1\.[0-9]+$",
            examples=["1.0"],
        ),
    ]
    dedup_key: Annotated[
        str,
        Meta(
            description="The fact itself: it is the same under another event type.",
            examples=["tx:123456:started"],
        ),
    ]
    history_epoch: HistoryEpoch | UnsetType = UNSET
