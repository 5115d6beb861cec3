"""The CALLs of charge points and the payloads that answer them (OCPP 1.6, 6; white paper, 5)."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from csms.ocpp.messages.fields import (
    IdToken,
    Int,
    Maybe,
    OcppTimestamp,
    Received,
    Sent,
    Text20,
    Text25,
    Text50,
    Text255,
    Text5500,
    Wh,
    normalise_times,
)

AuthorizationStatus = Literal["Accepted", "Blocked", "Expired", "Invalid", "ConcurrentTx"]
RegistrationStatus = Literal["Accepted", "Pending", "Rejected"]
DataTransferStatus = Annotated[
    Literal["Accepted", "Rejected", "UnknownMessageId", "UnknownVendorId"],
    Meta(extra={"aliases": {"UnknownVendor": "UnknownVendorId", "UnknownMessage": "UnknownMessageId"}}),
]

# Enumerations (OCPP 1.6, 7; white paper, 6). The formatter would give each value a line of its own.
# fmt: off
ChargePointStatus = Annotated[
    Literal[
        "Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing", "Reserved",
        "Unavailable", "Faulted",
    ],
    # Occupied (OCPP 1.5 and 2.0.1) says that a cable is in, not that energy flows.
    Meta(extra={"aliases": {
        "Occupied": "Preparing", "Suspended": "SuspendedEVSE", "Idle": "Available", "Free": "Available",
        "Fault": "Faulted", "Error": "Faulted", "Offline": "Unavailable", "Inoperative": "Unavailable",
        "OutOfService": "Unavailable",
    }}),
]
ChargePointErrorCode = Annotated[
    Literal[
        "ConnectorLockFailure", "EVCommunicationError", "GroundFailure", "HighTemperature",
        "InternalError", "LocalListConflict", "NoError", "OtherError", "OverCurrentFailure",
        "PowerMeterFailure", "PowerSwitchFailure", "ReaderFailure", "ResetFailure", "UnderVoltage",
        "OverVoltage", "WeakSignal",
    ],
    # Mode3Error was EVCommunicationError's name in OCPP 1.5.
    Meta(extra={"missing": "NoError", "unknown": "OtherError", "spill": "info", "aliases": {
        "Mode3Error": "EVCommunicationError", "No_Error": "NoError", "": "NoError", "None": "NoError",
    }}),
]
StopReason = Annotated[
    Literal[
        "EmergencyStop", "EVDisconnected", "HardReset", "Local", "Other", "PowerLoss", "Reboot",
        "Remote", "SoftReset", "UnlockCommand", "DeAuthorized",
    ],
    Meta(extra={"unknown": "Other", "aliases": {"EvDisconnect": "EVDisconnected", "Deauthorised": "DeAuthorized"}}),
]
DiagnosticsStatus = Literal["Idle", "Uploaded", "UploadFailed", "Uploading"]
FirmwareStatus = Literal[
    "Downloaded", "DownloadFailed", "Downloading", "Idle", "InstallationFailed", "Installing",
    "Installed",
]
SignedFirmwareStatus = Literal[
    "Downloaded", "DownloadFailed", "Downloading", "DownloadScheduled", "DownloadPaused", "Idle",
    "InstallationFailed", "Installing", "Installed", "InstallRebooting", "InstallScheduled",
    "InstallVerificationFailed", "InvalidSignature", "SignatureVerified",
]
UploadLogStatus = Literal[
    "BadMessage", "Idle", "NotSupportedOperation", "PermissionDenied", "Uploaded", "UploadFailure",
    "Uploading",
]
# fmt: on


class EmptyResponse(Sent, frozen=True):
    """The answer to a CALL that only informs."""


class BootNotificationRequest(Received, frozen=True):
    charge_point_vendor: Annotated[Text20, Meta(extra={"missing": ""})]
    charge_point_model: Annotated[Text20, Meta(extra={"missing": ""})]
    charge_point_serial_number: Maybe[Text25] = None
    charge_box_serial_number: Maybe[Text25] = None
    firmware_version: Maybe[Text50] = None
    iccid: Maybe[Text20] = None
    imsi: Maybe[Text20] = None
    meter_type: Maybe[Text25] = None
    meter_serial_number: Maybe[Text25] = None


class BootNotificationResponse(Sent, frozen=True):
    status: RegistrationStatus
    current_time: datetime
    interval: int

    def __post_init__(self) -> None:
        normalise_times(self, "current_time")


class HeartbeatRequest(Received, frozen=True):
    pass


class HeartbeatResponse(Sent, frozen=True):
    current_time: datetime

    def __post_init__(self) -> None:
        normalise_times(self, "current_time")


class AuthorizeRequest(Received, frozen=True):
    id_tag: IdToken


class IdTagInfo(Sent, frozen=True):
    status: AuthorizationStatus
    expiry_date: datetime | None = None
    parent_id_tag: str | None = None

    def __post_init__(self) -> None:
        normalise_times(self, "expiry_date")


class AuthorizeResponse(Sent, frozen=True):
    id_tag_info: IdTagInfo


class StatusNotificationRequest(Received, frozen=True):
    """`info` keeps an `errorCode` that OCPP does not know, if the charge point gave no info of its own."""

    connector_id: Int
    error_code: ChargePointErrorCode
    status: ChargePointStatus
    info: Maybe[Text50] = None
    timestamp: Maybe[OcppTimestamp] = None
    vendor_id: Maybe[Text255] = None
    vendor_error_code: Maybe[Text50] = None


class StartTransactionRequest(Received, frozen=True):
    """A field is None (`id_tag`: empty) only if the charge point left it out or nothing could be made of it."""

    connector_id: Maybe[Int]
    id_tag: Annotated[IdToken, Meta(extra={"missing": ""})]
    meter_start: Maybe[Wh]
    timestamp: Maybe[OcppTimestamp]
    reservation_id: Maybe[Int] = None


class StartTransactionResponse(Sent, frozen=True):
    id_tag_info: IdTagInfo
    transaction_id: int


class OcppSampledValue(Received, frozen=True):
    """One reading, as text: units and measurands that OCPP does not know are kept (OCPP 1.6, 7.43)."""

    value: Annotated[str, Meta(extra={"missing": ""})]
    context: Maybe[Text50] = None
    format: Maybe[Text50] = None
    measurand: Maybe[Text50] = None
    phase: Maybe[Text50] = None
    location: Maybe[Text50] = None
    unit: Maybe[Text50] = None


class OcppMeterValue(Received, frozen=True):
    timestamp: Maybe[OcppTimestamp]
    sampled_value: tuple[OcppSampledValue, ...]


class MeterValuesRequest(Received, frozen=True):
    connector_id: Maybe[Int]
    meter_value: tuple[OcppMeterValue, ...]
    transaction_id: Maybe[Int] = None


class StopTransactionRequest(Received, frozen=True):
    """`reason` None means Local (OCPP-J errata 2.6)."""

    meter_stop: Maybe[Wh]
    timestamp: Maybe[OcppTimestamp]
    transaction_id: Maybe[Int]
    id_tag: Maybe[IdToken] = None
    reason: Maybe[StopReason] = None
    transaction_data: Maybe[tuple[OcppMeterValue, ...]] = None


class StopTransactionResponse(Sent, frozen=True):
    id_tag_info: IdTagInfo | None = None


class DataTransferRequest(Received, frozen=True):
    vendor_id: Annotated[Text255, Meta(extra={"missing": ""})]
    message_id: Maybe[Text50] = None
    data: Maybe[Annotated[str, Meta(extra={"json_text": True})]] = None


class DataTransferResponse(Sent, frozen=True):
    status: DataTransferStatus
    data: str | None = None


# Firmware management profile (OCPP 1.6, 6.17 and 6.19)


class DiagnosticsStatusNotificationRequest(Received, frozen=True):
    status: DiagnosticsStatus


class FirmwareStatusNotificationRequest(Received, frozen=True):
    status: FirmwareStatus


# Security extension (white paper, 5)


class SecurityEventNotificationRequest(Received, frozen=True):
    type: Text50
    timestamp: Maybe[OcppTimestamp]
    tech_info: Maybe[Text255] = None


class SignCertificateRequest(Received, frozen=True):
    csr: Text5500


class SignCertificateResponse(Sent, frozen=True):
    status: Literal["Accepted", "Rejected"]


class LogStatusNotificationRequest(Received, frozen=True):
    """`request_id` is absent only if the charge point is Idle and was triggered."""

    status: UploadLogStatus
    request_id: Maybe[Int] = None


class SignedFirmwareStatusNotificationRequest(Received, frozen=True):
    status: SignedFirmwareStatus
    request_id: Maybe[Int] = None
