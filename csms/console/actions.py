"""What the pages' forms do: commands to chargers, enrollment and settings, entries of the quarantine, parked events."""

import json
from collections.abc import Callable
from typing import Any, Final

from starlette.background import BackgroundTask
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console.base import Console, ConsoleRequest
from csms.console.formatting import charger_url, pretty_json
from csms.core.text import storable
from csms.db import outbox
from csms.db.driver import driver_connection
from csms.errors import ChargerRefused, CommandError
from csms.outside import read_json
from csms.service import chargers as service
from csms.service import quarantine
from csms.service.chargers import known, usable
from csms.service.commands import perform
from csms.service.enrollment import announce_enrollment
from csms.service.problems import Problem, of_command


class FormError(Exception):
    """A field of a form has a value that it cannot have."""


def _text(form: FormData, name: str) -> str | None:
    return str(form.get(name, "")).strip() or None


def _number(form: FormData, name: str) -> int | None:
    text = _text(form, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise FormError(f"{name} must be a whole number.")
    return int(text)


_FIELDS: Final[dict[str, dict[str, Callable[[FormData, str], Any]]]] = {
    "RemoteStartTransaction": {"idTag": _text, "connectorId": _number},
    "RemoteStopTransaction": {"transactionId": _number},
    "TriggerMessage": {"requestedMessage": _text, "connectorId": _number},
    "Reset": {"type": _text},
    "UnlockConnector": {"connectorId": _number},
}
_REFUSALS: Final = frozenset(
    {"Rejected", "Failed", "UnlockFailed", "NotSupported", "Faulted", "UnknownVendorId"}
)


def command_of(form: FormData) -> tuple[str, dict[str, Any]]:
    """Return the OCPP action and payload that a form asks for, without its empty fields. Raises FormError."""
    action = _text(form, "action") or ""
    if action != "Custom":
        values = {name: read(form, name) for name, read in _FIELDS.get(action, {}).items()}
        return action, {name: value for name, value in values.items() if value is not None}
    try:
        payload = read_json((_text(form, "payload") or "{}").encode())
    except ValueError as error:
        raise FormError(f"The payload cannot be used: {error}.") from None
    if not isinstance(payload, dict):
        raise FormError("The payload must be a JSON object.")
    return _text(form, "customAction") or "", payload


async def command(console: Console, request: ConsoleRequest) -> Response:
    """Send a command, and show the charger's answer or why there is none."""
    charger_id = usable(request.http.path_params["charger_id"])
    form = await request.http.form()
    try:
        action, payload = command_of(form)
    except FormError as error:
        return _answer(console, request, charger_id, str(error))
    await known(console.context, charger_id)
    try:
        _, answer = await perform(console.context, request.identity, charger_id, action, payload)
    except Problem as problem:
        sentences = [error["detail"] for error in problem.more.get("errors", [{"detail": problem.detail}])]
        return _answer(console, request, charger_id, f"{action}: not sent.", "\n".join(sentences))
    except CommandError as error:
        details = error.details if isinstance(error, ChargerRefused) else None
        text = pretty_json(json.dumps(details)) if details else None
        return _answer(console, request, charger_id, f"{action}: {of_command(error).detail}", text)
    status = str(answer.get("status", "answered"))
    text = json.dumps(dict(answer), indent=2, ensure_ascii=False)
    return _answer(console, request, charger_id, f"{action}: {status}", text, good=status not in _REFUSALS)


def _answer(
    console: Console,
    request: ConsoleRequest,
    charger_id: str,
    headline: str,
    answer: str | None = None,
    *,
    good: bool = False,
) -> Response:
    values: dict[str, Any] = {"good": good, "headline": headline, "answer": answer}
    if "hx-request" in request.http.headers:
        return HTMLResponse(console.fragment("_answer.html", **values))
    return console.page("answered.html", request, back=charger_url(charger_id), **values)


async def settings(console: Console, request: ConsoleRequest) -> Response:
    """Change enrollment, name and tariff, each only if the form has it."""
    charger_id = usable(request.http.path_params["charger_id"])
    form = await request.http.form()
    values: dict[str, Any] = {}
    if "enrollment" in form:
        if form["enrollment"] not in {"Accepted", "Pending", "Rejected"}:
            return console.problem(request, 422, "Enrollment is Accepted, Pending or Rejected.")
        values["enrollment"] = form["enrollment"]
    if "displayName" in form:
        name = str(form["displayName"]).strip()
        if len(name) > 255 or not name.isprintable():
            return console.problem(request, 422, "A name has at most 255 printable characters.")
        values["display_name"] = name or None
    if "tariffId" in form:
        values["tariff_id"] = storable(str(form["tariffId"])) or None
    _, announce = await service.change(console.context, request.identity, charger_id, values)
    # The charger is notified after the answer: it can take its time.
    notify = (
        BackgroundTask(announce_enrollment, console.context, charger_id, values["enrollment"])
        if announce
        else None
    )
    if "hx-request" in request.http.headers:
        return Response(status_code=204, headers={"HX-Refresh": "true"}, background=notify)
    return RedirectResponse(charger_url(charger_id), 303, background=notify)


async def resolve(console: Console, request: ConsoleRequest) -> Response:
    """Resolve an entry of the quarantine with a note."""
    form = await request.http.form()
    note = storable(str(form.get("note", ""))).strip()[:2000]
    if not note:
        return console.problem(request, 422, "A note is needed: say what was done about the message.")
    await quarantine.resolve(console.context, request.http.path_params["held_id"], note)
    return RedirectResponse("/quarantine", 303)


async def repair(console: Console, request: ConsoleRequest) -> Response:
    """Repair an entry of the quarantine: record its message as the form has it."""
    form = await request.http.form()
    try:
        payload = read_json(str(form.get("payload", "")).encode())
        transaction_id = _number(form, "transactionId")
    except FormError as error:
        return console.problem(request, 422, str(error))
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        return console.problem(request, 422, "The message must be a JSON object.")
    booked = await quarantine.book(
        console.context,
        request.identity,
        request.http.path_params["held_id"],
        payload=payload,
        transaction_id=transaction_id,
        note=str(form.get("note", "")).strip()[:2000],
    )
    return RedirectResponse("/quarantine?resolved=true" if booked is None else f"/transactions/{booked}", 303)


async def revive(console: Console, _request: ConsoleRequest) -> Response:
    """Put all parked events back into the outbox."""
    async with console.context.engine.connect() as db:
        await outbox.revive(await driver_connection(db))
    return RedirectResponse("/events", 303)
