"""Corrections of transactions from their page, each with a preview; and the page of what needs an operator's attention."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast

from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console.base import Console, ConsoleRequest
from csms.console.formatting import NO_VALUE, duration, money, utc_time
from csms.core.records import Transaction
from csms.db.transaction_views import TransactionView
from csms.service import attention as attention_service
from csms.service import transactions as service
from csms.service.problems import Problem
from csms.service.session_progress import progress

_MOST_DIGITS = 15
_LONGEST_NOTE = 500


def _energy(form: FormData, name: str) -> int | None:
    text = str(form.get(name, "")).strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > _MOST_DIGITS:
        raise Problem(422, "invalid-request", f"{name} must be a whole number of Wh, from 0 on.")
    return int(text)


def _moment(form: FormData, name: str) -> datetime | None:
    text = str(form.get(name, "")).strip()
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Problem(
            422, "invalid-request", f"{name} must be a time in UTC such as 2026-01-31T12:00."
        ) from None


_Field = Callable[[FormData, str], Any]
_FIELDS: Final[dict[str, dict[str, tuple[str, _Field]]]] = {
    "stop": {"meter_stop_wh": ("meterStopWh", _energy), "stopped_at": ("stoppedAt", _moment)},
    "correct": {
        "meter_start_wh": ("meterStartWh", _energy),
        "meter_stop_wh": ("meterStopWh", _energy),
        "energy_wh": ("energyWh", _energy),
        "started_at": ("startedAt", _moment),
        "stopped_at": ("stoppedAt", _moment),
    },
    "release": {},
    "void": {},
}


async def preview(console: Console, request: ConsoleRequest) -> Response:
    """Show a transaction before and after a decision that is not made yet."""
    transaction_id, kind, given = await _asked(request)
    revised = await service.preview(console.context, request.identity, transaction_id, kind, **given)
    rows = _compared(revised.before, revised.after, console.context.now())
    if "hx-request" in request.http.headers:
        return HTMLResponse(console.fragment("_preview.html", rows=rows))
    return console.page("preview.html", request, rows=rows, transaction_id=transaction_id)


async def revise(console: Console, request: ConsoleRequest) -> Response:
    """Make a decision about a transaction, and show it."""
    transaction_id, kind, given = await _asked(request)
    await service.revise(console.context, request.identity, transaction_id, kind, **given)
    return RedirectResponse(f"/transactions/{transaction_id}", 303)


async def attention(console: Console, request: ConsoleRequest) -> Response:
    """Show what needs an operator."""
    found = await attention_service.needs_attention(console.context)
    return console.page("attention.html", request, found=found)


async def _asked(request: ConsoleRequest) -> tuple[int, service.RevisionKind, dict[str, Any]]:
    kind = request.http.path_params["kind"]
    if kind not in _FIELDS:
        raise Problem(404, "not-found", "There is nothing at this address.")
    form = await request.http.form()
    note = str(form.get("note", "")).strip()
    if not 0 < len(note) <= _LONGEST_NOTE:
        raise Problem(422, "invalid-request", f"A reason is needed, of at most {_LONGEST_NOTE} characters.")
    given = {name: read(form, field) for name, (field, read) in _FIELDS[kind].items()}
    return (
        request.http.path_params["transaction_id"],
        cast("service.RevisionKind", kind),
        given | {"note": note},
    )


def _compared(before: Transaction, after: Transaction, now: datetime) -> list[tuple[str, str, str]]:
    return [
        (label, shown(before, now), shown(after, now))
        for label, shown in _SHOWN
        if shown(after, now) != NO_VALUE
    ]


def _wh(value: int | None) -> str:
    return NO_VALUE if value is None else f"{value:,} Wh"


def _price(t: Transaction, now: datetime) -> str:
    return NO_VALUE if t.open else money(progress(TransactionView(transaction=t), now).cost)


_SHOWN: Final[tuple[tuple[str, Callable[[Transaction, datetime], str]], ...]] = (
    ("Register at the start", lambda t, _: _wh(t.meter_start_wh)),
    ("Register at the stop", lambda t, _: _wh(t.meter_stop_wh)),
    ("Energy", lambda t, _: _wh(t.energy_wh)),
    ("Start", lambda t, _: utc_time(t.started_at)),
    ("Stop", lambda t, _: utc_time(t.stopped_at)),
    ("Duration", lambda t, _: NO_VALUE if t.duration_s is None else duration(t.duration_s)),
    ("Cost", _price),
    ("Billing", lambda t, _: t.billing or "running"),
)
