"""Frames and quarantine in the JSON of the REST interface."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from csms.api.models import Input, Model


class MessageOut(Model):
    """A raw frame. `in` came from the charger, `out` went to it."""

    at: datetime
    direction: Literal["in", "out"]
    action: str | None
    message_id: str | None
    frame: str


class MessagePage(Model):
    items: list[MessageOut]
    next_cursor: str | None


class QuarantinedOut(Model):
    """A message that was acknowledged and could not be booked.

    `payload` is what came, as text; `ocpp` the same as OCPP's JSON where that is possible: mend it and send it
    to `/repair`. `enrollment`: it is here because its charger was not accepted. Pending: it is booked when an
    operator accepts the charger. Rejected: it is not booked.
    """

    id: int
    charger_id: str
    action: str
    message_id: str | None
    payload: str
    error: str
    transaction_id: int | None
    received_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    enrollment: str | None = None
    ocpp: dict[str, Any] | None = None


class QuarantinePage(Model):
    items: list[QuarantinedOut]
    next_cursor: str | None


class RepairIn(Input):
    """`payload`: the message in OCPP's JSON as it should have been; left out: as it came.

    `transactionId` takes the place of the payload's.
    """

    payload: dict[str, Any] | None = None
    transaction_id: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    note: Annotated[str, Field(max_length=2000)] = ""


class RepairOut(Model):
    """`transactionId`: what it was booked as (null for readings)."""

    transaction_id: int | None
    entry: QuarantinedOut


class Resolution(Input):
    note: Annotated[str, Field(min_length=1, max_length=2000)]
