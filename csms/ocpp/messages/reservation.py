"""Reservation profile (OCPP 1.6, 5.2, 5.13)."""

from typing import Literal

from csms.ocpp.messages.fields import ReceivedAnswer


class ReserveNowResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Faulted", "Occupied", "Rejected", "Unavailable"]


class CancelReservationResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Rejected"]
