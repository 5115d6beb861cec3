"""Remote trigger profile (OCPP 1.6, 5.17)."""

from typing import Literal

from csms.ocpp.messages.fields import Received


class TriggerMessageResponse(Received, frozen=True):
    status: Literal["Accepted", "Rejected", "NotImplemented"]
