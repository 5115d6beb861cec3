"""The forms of operators' decisions about a transaction: their fields, and what is entered in them."""

import re
from datetime import UTC, datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from msgspec import Struct
from starlette.datastructures import FormData

from csms.core.tariffs import zone_exists
from csms.service.problems import Problem

_MOST_DIGITS = 15
_LONGEST_NOTE = 500
_NOTE = "note"


class FormField(Struct, frozen=True):
    """A field of a form: its name as in REST, the figure that it sets, its label, and what it takes."""

    name: str
    figure: str
    label: str
    kind: Literal["energy", "moment"]


_START_WH = FormField("meterStartWh", "meter_start_wh", "Register at the start", "energy")
_STOP_WH = FormField("meterStopWh", "meter_stop_wh", "Register at the stop", "energy")
_ENERGY_WH = FormField("energyWh", "energy_wh", "Energy", "energy")
_STARTED = FormField("startedAt", "started_at", "Started at", "moment")
_STOPPED = FormField("stoppedAt", "stopped_at", "Stopped at", "moment")
FORM_FIELDS: Final[dict[str, tuple[FormField, ...]]] = {
    "stop": (_STOP_WH, _STOPPED),
    "correct": (_START_WH, _STOP_WH, _ENERGY_WH, _STARTED, _STOPPED),
    "release": (),
    "void": (),
}
_LABELS: Final = {field.name: field.label for field in FORM_FIELDS["correct"]}
_NAMES = re.compile("|".join(_LABELS))


def labelled(sentence: str) -> str:
    """Return a sentence about figures with the labels of the fields in place of their names in REST."""
    return _NAMES.sub(lambda name: f"“{_LABELS[name[0]]}”", sentence)


def field_of(problem: Problem, form: FormData, kind: str) -> str | None:
    """Return the name of the field that a problem is about: of those that it names, preferably one that was filled in."""
    named = [name for name in _NAMES.findall(problem.detail) if name in {f.name for f in FORM_FIELDS[kind]}]
    return problem.more.get("field") or next(
        (name for name in named if form.get(name)), next(iter(named), None)
    )


def given(form: FormData, kind: str) -> dict[str, Any]:
    """Return what a form asks for, by the figures of `Revise`. Raises Problem 422."""
    note = str(form.get(_NOTE, "")).strip()
    if not note:
        raise Problem(422, "invalid-request", "A reason is needed: say why.", field=_NOTE)
    if len(note) > _LONGEST_NOTE:
        sentence = f"The reason is too long: {len(note)} characters, where {_LONGEST_NOTE} are kept."
        raise Problem(422, "invalid-request", sentence, field=_NOTE)
    entered = {field.figure: _value(form, field) for field in FORM_FIELDS[kind]}
    return entered | {"note": note, "expected_revision": _revision(form)}


def _value(form: FormData, field: FormField) -> int | datetime | None:
    text = str(form.get(field.name, "")).strip()
    if not text:
        return None
    return _energy(text, field) if field.kind == "energy" else _moment(text, field, str(form.get("zone")))


def _energy(text: str, field: FormField) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _MOST_DIGITS:
        sentence = (
            f"{field.name} must be a whole number of Wh such as 24000, of at most {_MOST_DIGITS} digits."
        )
        raise Problem(422, "invalid-request", sentence)
    return int(text)


def _moment(text: str, field: FormField, zone: str) -> datetime:
    """Return a time that was entered in the reader's time zone, which the page's script adds to the form; else in UTC."""
    try:
        moment = datetime.fromisoformat(text)
        local = (
            moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone) if zone_exists(zone) else UTC)
        )
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        sentence = f"{field.name} must be a date and time such as 2026-01-31T12:00."
        raise Problem(422, "invalid-request", sentence) from None


def _revision(form: FormData) -> int | None:
    text = str(form.get("revision", ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
