"""What the pages' buttons do: commands to chargers, enrollment and settings, notes on quarantine."""

import json
from typing import Any

from starlette.background import BackgroundTask
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console.formatting import charger_url, pretty
from csms.console.site import Site, Visit
from csms.core.text import storable
from csms.db import admin, charger_views, outbox
from csms.db.driver import driver_connection
from csms.errors import ChargerRefused, CommandError
from csms.service import chargers as service
from csms.service import quarantine
from csms.service.chargers import usable
from csms.service.commands import perform
from csms.service.enrollment import announce_enrollment
from csms.service.problems import Problem, of_command


class BadForm(Exception):
    """A field that cannot be what it is."""


def _number(form: FormData, name: str) -> int | None:
    text = str(form.get(name, "")).strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise BadForm(f"{name} must be a whole number.")
    return int(text)


def command_of(form: FormData) -> tuple[str, dict[str, Any]]:
    """The action and payload that a form asks for; empty fields are left out. Raises BadForm."""
    action = str(form.get("action", "")).strip()
    payload: dict[str, Any] = {}
    match action:
        case "RemoteStartTransaction":
            payload = {
                "idTag": str(form.get("idTag", "")).strip(),
                "connectorId": _number(form, "connectorId"),
            }
        case "RemoteStopTransaction":
            payload = {"transactionId": _number(form, "transactionId")}
        case "TriggerMessage":
            payload = {
                "requestedMessage": form.get("requestedMessage"),
                "connectorId": _number(form, "connectorId"),
            }
        case "Reset":
            payload = {"type": form.get("type")}
        case "UnlockConnector":
            payload = {"connectorId": _number(form, "connectorId")}
        case "Custom":
            action = str(form.get("customAction", "")).strip()
            try:
                payload = json.loads(str(form.get("payload", "")).strip() or "{}")
            except ValueError as error:
                raise BadForm(f"The payload is not JSON: {error}") from None
            if not isinstance(payload, dict):
                raise BadForm("The payload must be a JSON object.")
            return action, payload
    return action, {name: value for name, value in payload.items() if value is not None}


async def command(site: Site, visit: Visit) -> Response:
    charger_id = usable(visit.request.path_params["charger_id"])
    form = await visit.request.form()
    try:
        action, payload = command_of(form)
    except BadForm as error:
        return _answer(site, visit, charger_id, good=False, headline=str(error))
    async with site.context.engine.connect() as db:
        if not await charger_views.charger_exists(db, charger_id):
            return site.problem(visit, 404, f"There is no charger {charger_id!r}.")
    try:
        _, answer = await perform(site.context, visit.identity, charger_id, action, payload)
    except Problem as refused:
        problems = [error["detail"] for error in refused.more.get("errors", [{"detail": refused.detail}])]
        return _answer(
            site, visit, charger_id, good=False, headline=f"{action}: not sent.", answer="\n".join(problems)
        )
    except CommandError as error:
        details = (
            pretty(json.dumps(error.details)) if isinstance(error, ChargerRefused) and error.details else None
        )
        sentence = of_command(error).detail
        return _answer(site, visit, charger_id, good=False, headline=f"{action}: {sentence}", answer=details)
    text = json.dumps(dict(answer), indent=2, ensure_ascii=False)
    verdict = str(answer.get("status", "answered"))
    good = verdict not in {"Rejected", "Failed", "UnlockFailed", "NotSupported", "Faulted", "UnknownVendorId"}
    return _answer(site, visit, charger_id, good=good, headline=f"{action}: {verdict}", answer=text)


def _answer(
    site: Site, visit: Visit, charger_id: str, *, good: bool, headline: str, answer: str | None = None
) -> Response:
    context: dict[str, Any] = {"good": good, "headline": headline, "answer": answer}
    if "hx-request" in visit.request.headers:
        return HTMLResponse(site.fragment("_answer.html", **context))
    return site.page("answered.html", visit, back=charger_url(charger_id), **context)


async def settings(site: Site, visit: Visit) -> Response:
    """Enrollment, name and tariff; fields the form does not have stay as they are."""
    charger_id = usable(visit.request.path_params["charger_id"])
    form = await visit.request.form()
    values: dict[str, Any] = {}
    if "enrollment" in form:
        if form["enrollment"] not in {"Accepted", "Pending", "Rejected"}:
            return site.problem(visit, 422, "Enrollment is Accepted, Pending or Rejected.")
        values["enrollment"] = form["enrollment"]
    if "displayName" in form:
        name = str(form["displayName"]).strip()
        if len(name) > 255 or not name.isprintable():
            return site.problem(visit, 422, "A name has at most 255 printable characters.")
        values["display_name"] = name or None
    if "tariffId" in form:
        values["tariff_id"] = storable(str(form["tariffId"])) or None
    try:
        _, announce = await service.change(site.context, charger_id, values)
    except (admin.Missing, admin.Conflict) as error:
        return site.problem(visit, 404 if isinstance(error, admin.Missing) else 409, str(error))
    told = None
    if announce:
        # The charger learns of it beside this answer: it may take its time.
        told = BackgroundTask(announce_enrollment, site.context, charger_id, values["enrollment"])
    if "hx-request" in visit.request.headers:
        return Response(status_code=204, headers={"HX-Refresh": "true"}, background=told)
    return RedirectResponse(charger_url(charger_id), 303, background=told)


async def resolve(site: Site, visit: Visit) -> Response:
    form = await visit.request.form()
    note = storable(str(form.get("note", ""))).strip()[:2000]
    if not note:
        return site.problem(visit, 422, "Say what was done about it.")
    try:
        await quarantine.resolve(site.context, visit.request.path_params["held_id"], note)
    except (admin.Missing, admin.Conflict) as error:
        return site.problem(visit, 404 if isinstance(error, admin.Missing) else 409, str(error))
    return RedirectResponse("/quarantine", 303)


async def revive(site: Site, visit: Visit) -> Response:
    """Send all parked events after all."""
    async with site.context.engine.connect() as db:
        await outbox.revive(await driver_connection(db))
    return RedirectResponse("/events", 303)


async def repair(site: Site, visit: Visit) -> Response:
    """Book what lies in quarantine, as the form has it."""
    form = await visit.request.form()
    try:
        payload = json.loads(str(form.get("payload", "")))
        transaction_id = _number(form, "transactionId")
    except BadForm as error:
        return site.problem(visit, 422, str(error))
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        return site.problem(visit, 422, "The message must be a JSON object, a transaction's id a number.")
    try:
        booked = await quarantine.book(
            site.context,
            visit.identity,
            visit.request.path_params["held_id"],
            payload=payload,
            transaction_id=transaction_id,
            note=str(form.get("note", "")).strip()[:2000],
        )
    except Problem as refused:
        return site.problem(visit, refused.status, refused.detail)
    return RedirectResponse("/quarantine?resolved=true" if booked is None else f"/transactions/{booked}", 303)
