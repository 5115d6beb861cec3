"""Firmware management profile (OCPP 1.6, 4.5, 4.6, 5.6, 5.19)."""

from typing import Literal

from csms.ocpp.messages.fields import Maybe, Received, ReceivedAnswer, Sent, Text255

DiagnosticsStatus = Literal["Idle", "Uploaded", "UploadFailed", "Uploading"]
FirmwareStatus = Literal[
    "Downloaded", "DownloadFailed", "Downloading", "Idle", "InstallationFailed", "Installing", "Installed"
]


class DiagnosticsStatusNotificationRequest(Received, frozen=True):
    status: DiagnosticsStatus


class DiagnosticsStatusNotificationResponse(Sent, frozen=True):
    pass


class FirmwareStatusNotificationRequest(Received, frozen=True):
    status: FirmwareStatus


class FirmwareStatusNotificationResponse(Sent, frozen=True):
    pass


class GetDiagnosticsResponse(ReceivedAnswer, frozen=True):
    file_name: Maybe[Text255] = None


class UpdateFirmwareResponse(ReceivedAnswer, frozen=True):
    pass
