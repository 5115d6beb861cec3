"""The CALLRESULTs of charge points to our CALLs (OCPP 1.6, 6; white paper, 5)."""

from typing import Annotated, Final, Generic, Literal, TypeAlias, TypeVar

from msgspec import Meta

from csms.ocpp.messages.charge_point_calls import DataTransferStatus
from csms.ocpp.messages.fields import (
    Int,
    Maybe,
    OcppTimestamp,
    ReceivedAnswer,
    Text40,
    Text50,
    Text128,
    Text255,
    Text500,
)

S = TypeVar("S")


class StatusAnswer(ReceivedAnswer, Generic[S], frozen=True):
    """A CALLRESULT of nothing but a status."""

    status: S


AcceptedOrRejected: TypeAlias = Literal["Accepted", "Rejected"]
UnlockStatus: TypeAlias = Annotated[
    Literal["Unlocked", "UnlockFailed", "NotSupported"], Meta(extra={"aliases": {"Accepted": "Unlocked"}})
]


class KeyValue(ReceivedAnswer, frozen=True):
    key: Text50
    readonly: Annotated[bool, Meta(extra={"missing": False})]
    value: Maybe[Text500] = None


class GetConfigurationResponse(ReceivedAnswer, frozen=True):
    configuration_key: tuple[KeyValue, ...] = ()
    unknown_key: tuple[Text50, ...] = ()


class DataTransferAnswer(ReceivedAnswer, frozen=True):
    status: DataTransferStatus
    data: Maybe[Annotated[str, Meta(extra={"json_text": True})]] = None


class GetDiagnosticsResponse(ReceivedAnswer, frozen=True):
    file_name: Maybe[Text255] = None


class UpdateFirmwareResponse(ReceivedAnswer, frozen=True):
    pass


class GetLocalListVersionResponse(ReceivedAnswer, frozen=True):
    """-1: not supported; 0: the list is empty (5.10)."""

    list_version: Int


class CertificateHashData(ReceivedAnswer, frozen=True):
    hash_algorithm: Literal["SHA256", "SHA384", "SHA512"]
    issuer_name_hash: Text128
    issuer_key_hash: Text128
    serial_number: Text40


class GetInstalledCertificateIdsResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "NotFound"]
    certificate_hash_data: tuple[CertificateHashData, ...] = ()


class GetLogResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Rejected", "AcceptedCanceled"]
    filename: Maybe[Text255] = None


class ChargingSchedulePeriod(ReceivedAnswer, frozen=True):
    """`limit` in the schedule's unit, from `start_period` seconds on. OCPP asks for a multiple of 0.1."""

    start_period: Int
    limit: float
    number_phases: Maybe[Int] = None


class ChargingSchedule(ReceivedAnswer, frozen=True):
    charging_rate_unit: Literal["A", "W"]
    charging_schedule_period: tuple[ChargingSchedulePeriod, ...]
    duration: Maybe[Int] = None
    start_schedule: Maybe[OcppTimestamp] = None
    min_charging_rate: Maybe[float] = None


class GetCompositeScheduleResponse(ReceivedAnswer, frozen=True):
    status: AcceptedOrRejected
    connector_id: Maybe[Int] = None
    schedule_start: Maybe[OcppTimestamp] = None
    charging_schedule: Maybe[ChargingSchedule] = None


# By the action of our CALL.
ANSWERS: Final[dict[str, type[ReceivedAnswer]]] = {
    "CancelReservation": StatusAnswer[AcceptedOrRejected],
    "CertificateSigned": StatusAnswer[AcceptedOrRejected],
    "ChangeAvailability": StatusAnswer[Literal["Accepted", "Rejected", "Scheduled"]],
    "ChangeConfiguration": StatusAnswer[Literal["Accepted", "Rejected", "RebootRequired", "NotSupported"]],
    "ClearCache": StatusAnswer[AcceptedOrRejected],
    "ClearChargingProfile": StatusAnswer[Literal["Accepted", "Unknown"]],
    "DataTransfer": DataTransferAnswer,
    "DeleteCertificate": StatusAnswer[Literal["Accepted", "Failed", "NotFound"]],
    "ExtendedTriggerMessage": StatusAnswer[Literal["Accepted", "Rejected", "NotImplemented"]],
    "GetCompositeSchedule": GetCompositeScheduleResponse,
    "GetConfiguration": GetConfigurationResponse,
    "GetDiagnostics": GetDiagnosticsResponse,
    "GetInstalledCertificateIds": GetInstalledCertificateIdsResponse,
    "GetLocalListVersion": GetLocalListVersionResponse,
    "GetLog": GetLogResponse,
    "InstallCertificate": StatusAnswer[Literal["Accepted", "Failed", "Rejected"]],
    "RemoteStartTransaction": StatusAnswer[AcceptedOrRejected],
    "RemoteStopTransaction": StatusAnswer[AcceptedOrRejected],
    "ReserveNow": StatusAnswer[Literal["Accepted", "Faulted", "Occupied", "Rejected", "Unavailable"]],
    "Reset": StatusAnswer[AcceptedOrRejected],
    "SendLocalList": StatusAnswer[Literal["Accepted", "Failed", "NotSupported", "VersionMismatch"]],
    "SetChargingProfile": StatusAnswer[Literal["Accepted", "Rejected", "NotSupported"]],
    "SignedUpdateFirmware": StatusAnswer[
        Literal["Accepted", "Rejected", "AcceptedCanceled", "InvalidCertificate", "RevokedCertificate"]
    ],
    "TriggerMessage": StatusAnswer[Literal["Accepted", "Rejected", "NotImplemented"]],
    "UnlockConnector": StatusAnswer[UnlockStatus],
    "UpdateFirmware": UpdateFirmwareResponse,
}
