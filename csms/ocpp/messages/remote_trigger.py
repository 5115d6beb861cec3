"""Remote trigger profile (OCPP 1.6, 5.17)."""

from typing import Literal

from csms.ocpp.messages.fields import ReceivedAnswer


class TriggerMessageResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Rejected", "NotImplemented"]
