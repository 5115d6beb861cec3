"""Local authorization list management profile (OCPP 1.6, 5.10, 5.15)."""

from typing import Literal

from csms.ocpp.messages.fields import Int, Received


class GetLocalListVersionResponse(Received, frozen=True):
    """-1: not supported; 0: the list is empty (5.10)."""

    list_version: Int


class SendLocalListResponse(Received, frozen=True):
    status: Literal["Accepted", "Failed", "NotSupported", "VersionMismatch"]
