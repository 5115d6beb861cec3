"""Local authorization list management profile (OCPP 1.6, 5.10, 5.15)."""

from typing import Literal

from csms.ocpp.messages.fields import Int, ReceivedAnswer


class GetLocalListVersionResponse(ReceivedAnswer, frozen=True):
    """-1: not supported; 0: the list is empty (5.10)."""

    list_version: Int


class SendLocalListResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Failed", "NotSupported", "VersionMismatch"]
