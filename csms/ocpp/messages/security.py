"""Messages of the OCA white paper "Improved security for OCPP 1.6-J" (edition 3)."""

from typing import Literal

from csms.ocpp.messages.fields import (
    Int,
    Maybe,
    OcppTimestamp,
    Received,
    ReceivedAnswer,
    Sent,
    Text40,
    Text50,
    Text128,
    Text255,
    Text5500,
)

GenericStatus = Literal["Accepted", "Rejected"]
SignedFirmwareStatus = Literal[
    "Downloaded",
    "DownloadFailed",
    "Downloading",
    "DownloadScheduled",
    "DownloadPaused",
    "Idle",
    "InstallationFailed",
    "Installing",
    "Installed",
    "InstallRebooting",
    "InstallScheduled",
    "InstallVerificationFailed",
    "InvalidSignature",
    "SignatureVerified",
]
UploadLogStatus = Literal[
    "BadMessage",
    "Idle",
    "NotSupportedOperation",
    "PermissionDenied",
    "Uploaded",
    "UploadFailure",
    "Uploading",
]


# --- requests of charge points, and the responses to them ----------------------------------------


class SecurityEventNotificationRequest(Received, frozen=True):
    type: Text50
    timestamp: Maybe[OcppTimestamp]
    tech_info: Maybe[Text255] = None


class SecurityEventNotificationResponse(Sent, frozen=True):
    pass


class SignCertificateRequest(Received, frozen=True):
    csr: Text5500


class SignCertificateResponse(Sent, frozen=True):
    status: GenericStatus


class LogStatusNotificationRequest(Received, frozen=True):
    """`request_id` is absent only if the charge point is Idle and was triggered."""

    status: UploadLogStatus
    request_id: Maybe[Int] = None


class LogStatusNotificationResponse(Sent, frozen=True):
    pass


class SignedFirmwareStatusNotificationRequest(Received, frozen=True):
    status: SignedFirmwareStatus
    request_id: Maybe[Int] = None


class SignedFirmwareStatusNotificationResponse(Sent, frozen=True):
    pass


# --- responses of charge points ------------------------------------------------------------------


class CertificateSignedResponse(ReceivedAnswer, frozen=True):
    status: GenericStatus


class InstallCertificateResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Failed", "Rejected"]


class DeleteCertificateResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Failed", "NotFound"]


class CertificateHashData(ReceivedAnswer, frozen=True):
    hash_algorithm: Literal["SHA256", "SHA384", "SHA512"]
    issuer_name_hash: Text128
    issuer_key_hash: Text128
    serial_number: Text40


class GetInstalledCertificateIdsResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "NotFound"]
    certificate_hash_data: tuple[CertificateHashData, ...] = ()


class ExtendedTriggerMessageResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Rejected", "NotImplemented"]


class GetLogResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Rejected", "AcceptedCanceled"]
    filename: Maybe[Text255] = None


class SignedUpdateFirmwareResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Rejected", "AcceptedCanceled", "InvalidCertificate", "RevokedCertificate"]
