"""Turn any JSON value into a message, keep all that can be kept, and note every change as a deviation.

It runs only if the strict typed decoder has refused a payload. `compile_repair(Struct)` builds, once per message, a
function that turns any JSON value into that Struct. It never raises and never loses more than one field for one defect.
The hints beside a field say what it may become (`messages.fields`).
"""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from csms.core.text import fold, storable
from csms.ocpp.lenient_values import (
    INT64_MAX,
    INT64_MIN,
    DeviationNotes,
    read_number,
    read_timestamp,
)

TEXT_CAP: Final = 1000  # characters kept of a text whose schema sets a limit; unlimited ones are never cut


class _Lost:
    """Marks a value of which nothing can be made; the reason has been noted."""


_LOST: Final = _Lost()

Fix = Callable[[Any, str, DeviationNotes], Any]


def _fix_text(limit: int | None, *, json_text: bool) -> Fix:
    def fix(value: Any, field: str, notes: DeviationNotes) -> Any:
        if not isinstance(value, str):
            if isinstance(value, bool):
                text = "true" if value else "false"
            elif isinstance(value, (int, Decimal)):
                text = str(value)
            elif json_text:
                text = _text_of(value)
            else:
                notes.add(field, "wrong_type", value)
                return _LOST
            notes.add(field, "wrong_type", value)
            value = text
        if "\x00" in value:
            value = value.replace("\x00", "")
            notes.add(field, "nul_removed")
        if not value.isascii() and (stored := storable(value)) != value:
            value = stored
            notes.add(field, "surrogate_replaced")
        if limit is not None and len(value) > limit:
            notes.add(field, "too_long", f"{len(value)} characters, {limit} allowed")
            if len(value) > max(limit, TEXT_CAP):
                value = value[: max(limit, TEXT_CAP)]
                notes.add(field, "truncated")
        return value

    return fix


def _text_of(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def _fix_int(*, rounding: bool) -> Fix:
    def fix(value: Any, field: str, notes: DeviationNotes) -> Any:
        number = read_number(value)
        if number is None:
            notes.add(field, "wrong_type", value)
            return _LOST
        if isinstance(number, Decimal):
            if not number.is_finite() or number.adjusted() > 20:
                notes.add(field, "out_of_range", value)
                return _LOST
            whole = int(number.to_integral_value())
            if whole != number:
                if not rounding:
                    notes.add(field, "wrong_type", value)
                    return _LOST
                notes.add(field, "rounded", value)
            elif not isinstance(value, str):
                notes.add(field, "wrong_type", value)
            number = whole
        if isinstance(value, str):
            notes.add(field, "wrong_type", value)
        if not INT64_MIN <= number <= INT64_MAX:
            notes.add(field, "out_of_range", value)
            return _LOST
        return number

    return fix


def _fix_float(value: Any, field: str, notes: DeviationNotes) -> Any:
    number = read_number(value)
    if number is None or (isinstance(number, Decimal) and number.adjusted() > 300):
        notes.add(field, "wrong_type", value)
        return _LOST
    if isinstance(value, str):
        notes.add(field, "wrong_type", value)
    return float(number)


_BOOLEANS: Final[dict[object, bool]] = {
    "true": True,
    "false": False,
    "1": True,
    "0": False,
    1: True,
    0: False,
}


def _fix_bool(value: Any, field: str, notes: DeviationNotes) -> Any:
    if isinstance(value, bool):
        return value
    notes.add(field, "wrong_type", value)
    if isinstance(value, str):
        return _BOOLEANS.get(value.strip().lower(), _LOST)
    return _BOOLEANS.get(value, _LOST) if isinstance(value, int) else _LOST


def _fix_time(value: Any, field: str, notes: DeviationNotes) -> Any:
    moment = read_timestamp(value, field, notes)
    return _LOST if moment is None else moment


def _fix_enum(values: tuple[Any, ...], hints: dict[str, Any]) -> Fix:
    exact = frozenset(values)
    folded = {fold(v): v for v in values} | {fold(k): v for k, v in hints.get("aliases", {}).items()}
    respelled = {fold(v) for v in values}
    fallback = hints.get("unknown", _LOST)

    def fix(value: Any, field: str, notes: DeviationNotes) -> Any:
        if not isinstance(value, str):
            notes.add(field, "wrong_type", value)
            return fallback
        if value in exact:
            return value
        name = fold(value)
        notes.add(field, "enum_respelled" if name in respelled else "unknown_value", value)
        return folded.get(name, fallback)

    return fix


def _fix_array(item: Fix) -> Fix:
    def fix(value: Any, field: str, notes: DeviationNotes) -> Any:
        if not isinstance(value, list):
            if not isinstance(value, (dict, str)) or value == "":
                notes.add(field, "wrong_type", value)
                return _LOST
            notes.add(field, "wrapped")
            value = [value]
        items = []
        for index, element in enumerate(value):
            fixed = item(element, f"{field}[{index}]", notes)
            if fixed is _LOST:
                notes.add(f"{field}[{index}]", "element_dropped", element)
            else:
                items.append(fixed)
        return tuple(items)

    return fix


# Other spellings of a field, beyond case and punctuation (OCPP 1.5 said `values` for both arrays).
_KEY_ALIASES: Final = {
    "meterValue": ("meterValues", "values"),
    "sampledValue": ("sampledValues", "values"),
    "transactionData": ("meterValue", "meterValues"),
    "configurationKey": ("configurationKeys",),
    "unknownKey": ("unknownKeys",),
}


class _Field(Struct, frozen=True):
    """How one field of a Struct is repaired."""

    name: str  # on the wire
    attribute: str
    fix: Fix
    required: bool
    default: Any  # what a required field becomes when it is lost; _LOST: the message is lost with it
    spill: str | None  # the attribute that keeps an enumeration's unknown value


def _field(f: msgspec.inspect.Field) -> _Field:
    kind, hints = _unwrap(f.type)
    if hints.get("nullable"):
        default: Any = None
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        default = ()
    else:
        default = hints.get("missing", _LOST)
    return _Field(f.encode_name, f.name, _fixer(kind, hints), f.required, default, hints.get("spill"))


def _unwrap(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, dict[str, Any]]:
    if isinstance(kind, msgspec.inspect.Metadata):
        return kind.type, kind.extra or {}
    return kind, {}


def _fixer(kind: msgspec.inspect.Type, hints: dict[str, Any]) -> Fix:
    match kind:
        case msgspec.inspect.StrType():
            return _fix_text(kind.max_length, json_text=hints.get("json_text", False))
        case msgspec.inspect.IntType():
            return _fix_int(rounding=hints.get("round", False))
        case msgspec.inspect.FloatType():
            return _fix_float
        case msgspec.inspect.BoolType():
            return _fix_bool
        case msgspec.inspect.DateTimeType():
            return _fix_time
        case msgspec.inspect.LiteralType():
            return _fix_enum(kind.values, hints)
        case msgspec.inspect.VarTupleType():
            return _fix_array(_fixer(*_unwrap(kind.item_type)))
        case msgspec.inspect.StructType():
            return _fix_object(kind)
    raise TypeError(f"no repair for {kind}")


def _fix_object(kind: msgspec.inspect.StructType) -> Fix:
    fields = [_field(f) for f in kind.fields]
    exact = {f.name: f for f in fields}
    folded = {fold(alias): f for f in fields for alias in _KEY_ALIASES.get(f.name, ())}
    folded |= {fold(f.name): f for f in fields}
    required = [f for f in fields if f.required]
    build: Callable[..., Any] = kind.cls

    def fix(value: Any, path: str, notes: DeviationNotes) -> Any:
        if not isinstance(value, dict):
            notes.add(path, "wrong_type", value)
            return _LOST
        prefix = f"{path}." if path else ""
        found: dict[str, Any] = {}
        noted: set[str] = set()
        for key, raw in value.items():
            f = exact.get(key)
            if f is None:
                f = folded.get(fold(key))
                if f is None or f.name in value:
                    notes.add(prefix + key, "extra_dropped", raw)
                    continue
                notes.add(prefix + f.name, "key_renamed", key)
            noted.add(f.attribute)
            if raw is None:
                notes.add(prefix + f.name, "null_dropped")
                continue
            fixed = f.fix(raw, prefix + f.name, notes)
            if fixed is _LOST:
                continue
            found[f.attribute] = fixed
            if f.spill and fixed != raw and fold(fixed) != fold(str(raw)):
                found.setdefault(f.spill, storable(str(raw))[:TEXT_CAP])
        for f in required:
            if f.attribute in found:
                continue
            if f.attribute not in noted:
                notes.add(prefix + f.name, "missing")
            if f.default is _LOST:
                return _LOST
            found[f.attribute] = f.default
        return build(**found)

    return fix


def compile_repair(message: type[Struct]) -> Callable[[Any, DeviationNotes], Any]:
    """A function (JSON value, notes) -> an instance of `message`, or None if nothing can be made of the value.

    The function never raises. What it changed, and why it gave up, is in the notes.
    """
    kind = msgspec.inspect.type_info(message)
    fix = _fixer(kind, {})

    def repair(value: Any, notes: DeviationNotes) -> Any:
        if value is None or value in ([], ""):
            if value is not None:
                notes.add("", "empty_payload", value)
            value = {}
        fixed = fix(value, "", notes)
        return None if fixed is _LOST else fixed

    return repair
