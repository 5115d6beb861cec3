"""Field types of OCPP 1.6 (chapter 7), strict for the typed decoder, with the hints that `message_repair` works by.

Hints (in `Meta.extra`): `nullable` a required field may become None · `missing` what an absent required field becomes ·
`unknown` what a value outside the enumeration becomes · `aliases` other names of a value · `spill` the sibling that keeps
the unknown value · `round` fractions are rounded · `json_text` objects become their JSON text.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from csms.ocpp.lenient_values import INT64_MAX, INT64_MIN

T = TypeVar("T")

if TYPE_CHECKING:
    Maybe: TypeAlias = T | None
else:

    class Maybe:
        """`Maybe[T]` is `T | None` to the type checker and plain `T` to the decoder.

        So an explicit null, which OCPP does not allow, is refused by the strict decoder and noted as a deviation.
        """

        def __class_getitem__(cls, item: Any) -> Any:
            return Annotated[item, Meta(extra={"nullable": True})]


Int = Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)]
Wh = Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX, extra={"round": True})]
OcppTimestamp = Annotated[datetime, Meta(tz=True)]
IdToken = Annotated[str, Meta(max_length=20)]
Text20 = Annotated[str, Meta(max_length=20)]
Text25 = Annotated[str, Meta(max_length=25)]
Text40 = Annotated[str, Meta(max_length=40)]
Text50 = Annotated[str, Meta(max_length=50)]
Text128 = Annotated[str, Meta(max_length=128)]
Text255 = Annotated[str, Meta(max_length=255)]
Text500 = Annotated[str, Meta(max_length=500)]
Text5500 = Annotated[str, Meta(max_length=5500)]


class Received(Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """A payload that a charge point sent. `gc=False`: a decoded tree cannot contain a cycle."""


class ReceivedAnswer(Received, frozen=True, gc=False, omit_defaults=True):
    """A payload that answers a CALL of ours. Encoded again after a repair, it has no nulls."""


class Sent(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """A payload that we send: strict, nulls left out."""


def wire_time(moment: datetime) -> datetime:
    """UTC in whole seconds, which every charge point's parser reads. Raises ValueError for a naive time."""
    if moment.tzinfo is None:
        raise ValueError("a time without zone cannot be sent")
    return moment.astimezone(UTC).replace(microsecond=0)


def normalise_times(message: Struct, *names: str) -> None:
    """Bring the named fields of a new message to `wire_time`; for `__post_init__`."""
    for name in names:
        moment = getattr(message, name)
        if moment is not None:
            force_setattr(message, name, wire_time(moment))


# Whether the times of a decoded message can be stored as they are.
TimeCheck = Callable[[Any], bool]


def plausible(moment: datetime | None) -> bool:
    """Not before the year 2000 (a clock that was never set) and clear of the year 9999, where UTC would overflow."""
    return moment is None or 2000 <= moment.year < 9999
