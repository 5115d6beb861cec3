"""The line language of a case's steps.

    boot vendor=Alfen model=Eve firmware=5.1       BootNotification
    start @0 1000 tag=ALICE on=2                   StartTransaction; `-` in place of the register: none
    reading @30 6000 Wh ctx=Sample.Clock tx=none   MeterValues; `;` begins another sample, `; @31` another reading
    stop @120 21000 reason=Local ; 21000           StopTransaction; what is behind `;` is its transactionData
    status @5 Charging on=1                        StatusNotification
    authorize ALICE · heartbeat · reconnect
    again · resend                                 the last message with a new message id, with the same one
    frame [2,"$id","MeterValues",…]                a raw frame; $id, $tx (the last transaction) and $@30 are filled in
    tag ALICE parent=FAMILY                        an operator registers an idTag
    book tx=#1 · book with {"connectorId": 1}      an operator books the newest message in quarantine, as it is or so
    correct #1 {"energyWh": 5000} · void #1        an operator corrects, or makes void, the first transaction
    infer                                          csms ends what looks ended, as its reconciler does
    shows 5000 Wh power=0 status=Charging          what the REST interface shows now; `register=6000`

`refused` behind what an operator does: it is answered with 422.

A time is in minutes after the case's begin, or `now`, `now+20d`, `now-3h`, `1970`, `1970+30`, `none` (left out); any other
text is sent as it is. `tx=none` leaves the transaction out, `tx=#2` names the second one, `tx=4711` is sent as it is.
A JSON object at the end of a line replaces or adds fields of the message, at the end of a sample those of the sample.
"""

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

_OPTION = re.compile(r"([a-z]+)=(.*)", re.DOTALL)
_SHIFTED = re.compile(r"(now|1970)(?:([+-])(\d+(?:\.\d+)?)([dhms]?))?")
_MINUTES = re.compile(r"-?\d+(\.\d+)?")
_UNITS = {"d": 1440.0, "h": 60.0, "m": 1.0, "s": 1 / 60, "": 1.0}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PART = re.compile(r"\s+;\s+")


class Part(Struct, kw_only=True):
    """The words of a line, or of what is between two semicolons. `when` as written; `more`: the JSON object at the end."""

    words: list[str]
    options: dict[str, str]
    when: str | None = None
    more: dict[str, Any] = {}


class Step(Struct, kw_only=True):
    """One line. `rest`: all behind the verb, as written."""

    verb: str
    rest: str
    parts: list[Part]


def parse(steps: str) -> list[Step]:
    """Return the steps of a case. Blank lines and those that begin with `#` are ignored."""
    lines = [line.strip() for line in steps.splitlines()]
    return [_step(line) for line in lines if line and not line.startswith("#")]


def _step(line: str) -> Step:
    verb, _, rest = line.partition(" ")
    return Step(
        verb=verb, rest=rest, parts=[] if verb == "frame" else [_part(text) for text in _PART.split(rest)]
    )


def _part(text: str) -> Part:
    words, opened, braces = text.partition(" {")
    found = Part(words=[], options={}, more=json.loads(opened + braces) if opened else {})
    for word in shlex.split(words):
        option = _OPTION.fullmatch(word)
        if option is not None:
            found.options[option[1]] = option[2]
        elif word.startswith("@"):
            found.when = word[1:]
        else:
            found.words.append(word)
    return found


def moment(when: str, begins: datetime, now: datetime) -> str | None:
    """Return a time of a step as a charger sends it; None: it is left out."""
    if when == "none":
        return None
    if _MINUTES.fullmatch(when) and when != "1970":
        return written(begins + timedelta(minutes=float(when)))
    shifted = _SHIFTED.fullmatch(when)
    if shifted is None:
        return when
    base = now if shifted[1] == "now" else _EPOCH
    minutes = float(shifted[3] or 0) * _UNITS[shifted[4] or ""]
    return written(base + timedelta(minutes=-minutes if shifted[2] == "-" else minutes))


def written(at: datetime) -> str:
    """Return a time in ISO 8601, in UTC, with milliseconds where it has some."""
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
