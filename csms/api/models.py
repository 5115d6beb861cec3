"""The JSON of the REST interface. Keys in camelCase with their units; money as decimal strings."""

from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


def printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("printable characters only")
    return value


def zone(value: str | None) -> str | None:
    if value is not None and value not in available_timezones():
        raise ValueError("an IANA time zone such as Europe/Vienna")
    return ZoneInfo(value).key if value is not None else None


Name = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(printable)]
IdTag = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(printable)]
Rate = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=6)]
Enrollment = Literal["Accepted", "Pending", "Rejected"]
TagStatus = Literal["Accepted", "Blocked", "Expired", "Invalid"]
Role = Literal["admin", "operator", "viewer"]


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class Input(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", hide_input_in_errors=True
    )

    def given(self) -> dict[str, Any]:
        """The fields that the request names, by their column."""
        return self.model_dump(exclude_unset=True)


# --- health, problems ---------------------------------------------------------------------------------


class CheckOut(Model):
    name: str
    state: Literal["ok", "degraded", "failing"]
    detail: str


class HealthOut(Model):
    status: Literal["ok", "degraded", "failing"]
    checks: list[CheckOut]


class ProblemOut(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
