"""Tags and tokens in the JSON of the REST interface."""

from datetime import datetime
from typing import Annotated

from msgspec.structs import asdict
from pydantic import AfterValidator, AwareDatetime, Field

from csms.api.models import IdTag, Input, Model, Name, Role, TagStatus, printable
from csms.core.closing import AUDIT, CHARGER, CSMS
from csms.db.admin import TagView


class TagIn(Input):
    status: TagStatus = "Accepted"
    expiry_date: AwareDatetime | None = None
    parent_id_tag: IdTag | None = None
    max_active_transactions: int | None = Field(None, ge=0, le=1_000_000)
    tariff_id: Name | None = Field(None, description="Comes before the charger's")


class TagOut(Model):
    id_tag: str
    status: TagStatus
    expiry_date: datetime | None
    parent_id_tag: str | None
    max_active_transactions: int | None
    tariff_id: str | None
    created_at: datetime

    @classmethod
    def of(cls, view: TagView) -> "TagOut":
        return cls(**asdict(view.tag), expiry_date=view.tag.expiry_at, created_at=view.created_at)


class TagPage(Model):
    items: list[TagOut]
    next_cursor: str | None


def _of_a_person(name: str) -> str:
    """Refuse the names by which revisions that no operator made are known."""
    if name.strip().casefold() in {AUDIT, CHARGER, CSMS}:
        raise ValueError(f"not {name}: revisions that no operator made have this author")
    return name


class TokenIn(Input):
    name: Annotated[
        str, Field(min_length=1, max_length=100), AfterValidator(printable), AfterValidator(_of_a_person)
    ]
    role: Role = "viewer"
    expires_at: AwareDatetime | None = Field(None, description="Null: valid until it is revoked")


class TokenOut(Model):
    id: int
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Written at most once a minute")
    revoked_at: datetime | None


class NewToken(TokenOut):
    token: str = Field(description="The bearer token: shown this once, kept nowhere")


class Tokens(Model):
    items: list[TokenOut]
