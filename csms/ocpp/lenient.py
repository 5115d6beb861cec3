"""Read texts, numbers, times and whole JSON documents that break the rules, and note how.

Nothing here knows a message; `repair` applies it field by field.
"""

import json
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import Struct

from csms.core.text import storable

Kind = Literal[
    "clock_not_set",  # a time before 2000: kept, but the charger's clock was not set
    "element_dropped",  # an item of an array could not be read at all
    "empty_payload",  # an empty array or string where an object belongs
    "encoding_repaired",  # bytes that are not UTF-8
    "enum_respelled",  # right value, wrong case, spaces or underscores
    "extra_dropped",  # a field that the message does not have
    "frame_elements",  # the frame has too few or too many elements
    "key_renamed",  # right field, wrong spelling
    "message_id_long",  # more than 36 characters
    "message_id_type",  # not a string
    "missing",  # a required field is absent
    "more",  # further deviations of the same message are not listed
    "naive_timestamp",  # a time without zone: read in the zone given to decode
    "nul_removed",  # U+0000 in a text
    "null_dropped",  # an explicit null
    "odd_timestamp",  # readable, but not RFC 3339
    "out_of_range",  # an integer that does not fit 64 bits
    "rounded",  # a fraction where an integer belongs
    "surrogate_replaced",  # half of a surrogate pair in a text
    "timestamp_out_of_range",  # a year before 1970 or after 9998
    "too_long",  # longer than the schema allows: kept as it is
    "trailing_dropped",  # something after the end of the JSON text
    "truncated",  # a text so long that it was cut
    "unknown_value",  # a value outside the enumeration
    "unreadable_timestamp",  # no time can be made of it
    "wrapped",  # one object where an array belongs
    "wrong_type",  # a value of another JSON type: converted if possible, otherwise left out
]
KINDS: Final[frozenset[str]] = frozenset(get_args(Kind))

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
_MAX_DEVIATIONS: Final = 50
_DETAIL_CAP: Final = 120


class Deviation(Struct, frozen=True, gc=False):
    """One departure from the specification that was tolerated.

    `field` is the path in OCPP's own names (`meterValue[0].timestamp`; empty: the whole message).
    """

    field: str
    kind: Kind
    detail: str = ""


class Notes:
    """Collects the deviations of one message, and the zone that its naive timestamps are in."""

    __slots__ = ("deviations", "zone")

    def __init__(self, zone: tzinfo = UTC) -> None:
        self.deviations: list[Deviation] = []
        self.zone = zone

    def add(self, field: str, kind: Kind, detail: object = "") -> None:
        if len(self.deviations) < _MAX_DEVIATIONS:
            self.deviations.append(Deviation(storable(field)[:_DETAIL_CAP], kind, _shown(detail)))
        elif len(self.deviations) == _MAX_DEVIATIONS:
            self.deviations.append(Deviation("", "more"))


def _shown(value: object) -> str:
    if isinstance(value, str):
        return storable(value[:_DETAIL_CAP])
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (dict, list)):
        return f"{'object' if isinstance(value, dict) else 'array'} of {len(value)}"
    return str(value)[:_DETAIL_CAP]


def read_json(data: bytes, notes: Notes) -> Any:
    """Parse JSON text as leniently as can be done without guessing.

    Tolerates a byte order mark, bytes that are not UTF-8, control characters in strings, lone surrogates, NaN (as
    null) and anything after the end. Fractions become Decimal, so that no digit of a reading is lost.
    Raises ValueError if it is no JSON at all, or nested beyond reason.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
        notes.add("", "encoding_repaired", "not UTF-8")
    text = text.lstrip("\ufeff \t\r\n")
    try:
        value, end = JSON.raw_decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if rest := text[end:].strip(" \t\r\n"):
        notes.add("", "trailing_dropped", rest)
    return value


def _json_int(digits: str) -> int | Decimal:
    # int() refuses more than 4,300 digits; nothing above 19 fits anyway.
    return int(digits) if len(digits) <= 40 else Decimal(digits)


def _json_float(digits: str) -> Decimal | None:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent of twenty digits
        return None


def _json_constant(_: str) -> None:
    return None  # NaN, Infinity: no number


JSON = json.JSONDecoder(
    strict=False, parse_float=_json_float, parse_int=_json_int, parse_constant=_json_constant
)

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3},\d{3}", re.ASCII)


def read_number(value: Any) -> int | Decimal | None:
    """The number in a JSON number or a numeric text ("12", "1.0", "230,5"), or None.

    "1,234" is refused: it may be one thousand or one and a bit, and energy is billed by it.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, Decimal)):
        return value
    if not isinstance(value, str) or len(value) > 40:
        return None
    text = value.strip()
    if not _NUMBER.fullmatch(text) or _GROUPED.fullmatch(text):
        return None
    try:
        number = Decimal(text.replace(",", "."))
    except InvalidOperation:
        return None
    return int(number) if number == number.to_integral_value() and number.adjusted() < 40 else number


_TIMESTAMP = re.compile(
    r"""(\d{4}) (?: ([-/.]) (\d\d?) \2 (\d\d?) | (\d\d) (\d\d) )
        (?: [Tt\s_]* (\d\d?) :? (\d\d) (?: :? (\d\d) (?:[.,:](\d*))? )? )?
        \s* (Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?""",
    re.VERBOSE | re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_timestamp(value: Any, field: str, notes: Notes) -> datetime | None:
    """A time as an aware datetime, or None; every departure from RFC 3339 is noted.

    Accepts a missing zone (read in `notes.zone`), fractions of any length, one-digit fields, 24:00, second 60,
    basic format, a date alone, and seconds or milliseconds since 1970. Years 1970 to 1999 are kept and noted.
    """
    if isinstance(value, str):
        moment = _read_text_time(value.strip(), field, notes)
    else:
        moment = _read_epoch(value, field, notes)
    if moment is None:
        notes.add(field, "unreadable_timestamp", value)
        return None
    if not 1970 <= moment.year < 9999:
        notes.add(field, "timestamp_out_of_range", value)
        return None
    if moment.tzinfo is None:
        notes.add(field, "naive_timestamp", value)
        moment = moment.replace(tzinfo=notes.zone)
    moment = moment.astimezone(UTC)
    if moment.year < 2000:
        notes.add(field, "clock_not_set", value)
    return moment


def _read_epoch(value: Any, field: str, notes: Notes) -> datetime | None:
    number = read_number(value)
    # Below 2001 as seconds it is more likely a counter than a time.
    if number is None or not 10**9 <= number < 10**13:
        return None
    notes.add(field, "odd_timestamp", value)
    return _EPOCH + timedelta(seconds=float(number if number < 10**11 else number / 1000))


def _read_text_time(text: str, field: str, notes: Notes) -> datetime | None:
    try:
        return msgspec.convert(text, datetime)
    except (msgspec.ValidationError, UnicodeEncodeError):
        pass
    if text.isdigit() and 10 <= len(text) <= 13 and text.isascii():
        return _read_epoch(text, field, notes)
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        return None
    year, _, month, day, month2, day2, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(int(year), int(month or month2), int(day or day2))  # noqa: DTZ001 - the zone follows
        moment += timedelta(
            hours=_upto(hour, 24),
            minutes=_upto(minute, 59),
            seconds=_upto(second, 60),
            microseconds=int(f"{fraction or 0:0<6}"[:6]),
        )
        if zone:
            moment = moment.replace(tzinfo=_zone(zone))
    except (ValueError, OverflowError):
        return None
    notes.add(field, "odd_timestamp", text)
    return moment


def _upto(digits: str | None, limit: int) -> int:
    number = int(digits or 0)
    if number > limit:
        raise ValueError(f"{number} is more than {limit}")
    return number


def _zone(text: str) -> tzinfo:
    if text[0] not in "+-":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=_upto(digits[:2], 23), minutes=_upto(digits[2:], 59))
    return timezone(-offset if text[0] == "-" else offset)
