"""Certificates and security events in the JSON of the REST interface."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from csms.api.models import Input, Model, printable


class SecurityEventOut(Model):
    """`reportedAt` is the charger's clock, `recordedAt` ours."""

    id: int
    type: str
    tech_info: str | None
    reported_at: datetime | None
    recorded_at: datetime


class SecurityEventPage(Model):
    items: list[SecurityEventOut]
    next_cursor: str | None


class CertificateOut(Model):
    """A client certificate. `issued`: sent, and not answered by the charger yet."""

    serial: str
    charger_id: str | None
    status: Literal["issued", "accepted", "rejected", "revoked"]
    subject: str | None
    not_before: datetime | None
    not_after: datetime | None
    issued_at: datetime
    answered_at: datetime | None
    revoked_at: datetime | None
    reason: str | None
    pem: str | None


class Certificates(Model):
    items: list[CertificateOut]


class Revocation(Input):
    reason: Annotated[str, Field(max_length=500), AfterValidator(printable)] | None = None
