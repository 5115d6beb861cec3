"""Strict check of the requests that are sent to charge points, against the JSON schemas of OCPP 1.6.

Only what is received is tolerated: a charge point may end its connection, or restart, over one field too many.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Final

from jsonschema import Draft4Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from msgspec import Struct

from csms.ocpp.messages import OUTBOUND


class SchemaProblem(Struct, frozen=True):
    """One breach of the schema. `field` is a path in OCPP's own names, empty for the payload itself."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text


_formats: Final = FormatChecker(formats=())
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\"<>\\^`{|}]+", re.ASCII)


def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    if not _DATE_TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", value))
    except ValueError:
        return False
    return True


def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or _URI.fullmatch(value) is not None


_formats.checks("date-time")(_is_date_time)
_formats.checks("uri")(_is_uri)


@cache
def _validator(action: str) -> Draft4Validator:
    # The security extension's schemas say draft-06, where 1.0 is an integer; OCPP 1.6 is draft-04 throughout
    # (OCPP-J errata 3.8). Decimal, because 0.3 is no multiple of 0.1 in binary.
    text = resources.files("ocpp").joinpath("v16", "schemas", f"{action}.json").read_text("utf-8-sig")
    return Draft4Validator(json.loads(text, parse_float=Decimal), format_checker=_formats)


def check_request(action: str, payload: Mapping[str, Any]) -> list[SchemaProblem]:
    """What OCPP 1.6 does not allow of `payload` (OCPP's JSON) in `action`.req; empty if it may be sent.

    An action that a central system does not send is a problem too.
    """
    if action not in OUTBOUND:
        return [SchemaProblem("", f"{action} is not a request of a central system")]
    try:
        text = json.dumps(payload, allow_nan=False)
        value = json.loads(text, parse_float=Decimal)
    except (TypeError, ValueError, RecursionError) as error:
        return [SchemaProblem("", f"not JSON: {error}")]
    problems = {_problem(error) for error in _validator(action).iter_errors(value)}
    return sorted(problems, key=lambda p: (p.field, p.text))


def _problem(error: ValidationError) -> SchemaProblem:
    field = ""
    for step in error.absolute_path:
        field += f"[{step}]" if isinstance(step, int) else f".{step}" if field else step
    return SchemaProblem(field, _text(error))


def _text(error: ValidationError) -> str:
    # jsonschema shows Decimal('0.15'), and puts null as None.
    shown = json.dumps(error.instance, default=float)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    match error.validator:
        case "multipleOf":
            return f"{shown} is not a multiple of {error.validator_value}"
        case "type":
            return f"{shown.replace(chr(34), chr(39))} is not of type '{error.validator_value}'"
        case "enum":
            return f"{shown.replace(chr(34), chr(39))} is not one of {', '.join(error.validator_value)}"
        case "maxLength":
            return f"{len(error.instance)} characters are more than the {error.validator_value} allowed"
        case "format":
            hint = (
                " with seconds and zone, such as 2026-01-31T08:00:00Z"
                if error.validator_value == "date-time"
                else ""
            )
            return f"{shown.replace(chr(34), chr(39))} is not a {error.validator_value}{hint}"
        case "minItems":
            return "must not be empty"
        case "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            return f"{' and '.join(missing)} must be given"
        case "additionalProperties":
            surplus = [name for name in error.instance if name not in error.schema.get("properties", {})]
            return f"{', '.join(surplus)} is not part of it"[:200]
    return str(error.message)
