"""Chargers: list, register, change, forget; how they depart from the protocol."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Path, Query, Response
from pydantic import SecretStr

from csms.api import pages
from csms.api.deps import Api
from csms.api.enrollment import enrollment_changed
from csms.api.models import (
    ChargerOut,
    ChargerPage,
    ChargerSettings,
    DeviationOut,
    Deviations,
    NewCharger,
)
from csms.api.problems import Problem
from csms.api.security import Deps, operator, viewer
from csms.core.passwords import hash_password
from csms.db import admin, logs, views

# `:path` because an identity may contain a slash (percent-encoded on the charger's side and here).
ChargerId = Annotated[str, Path(description="The charge point's identity", max_length=255)]
router = APIRouter(prefix="/chargers", tags=["chargers"])


def unknown(charger_id: str) -> Problem:
    return Problem(404, "unknown-charger", f"There is no charger {charger_id!r}.")


def usable(charger_id: str) -> str:
    """An identity that can be stored at all. Raises Problem 404."""
    if not charger_id.isprintable() or len(charger_id.encode(errors="replace")) > 255:
        raise unknown(charger_id)
    return charger_id


def _columns(settings: ChargerSettings) -> dict[str, Any]:
    given = settings.given()
    if "password" in given:
        password: SecretStr | None = given.pop("password")
        given["password_hash"] = None if password is None else hash_password(password.get_secret_value())
        given["pending_password_hashes"] = []
    if "security_profile" in given:
        given["pending_security_profile"] = None
    return given


@router.get("", dependencies=[viewer])
async def list_chargers(
    api: Deps,
    online: bool | None = None,
    enrollment: Literal["Accepted", "Pending", "Rejected"] | None = None,
    q: Annotated[str | None, Query(max_length=100, description="A part of the id or display name")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    cursor: pages.Cursor = None,
) -> ChargerPage:
    after = pages.decode(cursor, tuple[str])
    async with api.engine.connect() as db:
        found = await views.list_chargers(
            db,
            after_id=_storable(after[0]) if after else "",
            limit=limit + 1,
            online=online,
            enrollment=enrollment,
            containing=_storable(q) if q else None,
        )
    items, following = pages.cut(found, limit, lambda view: (view.id,))
    return ChargerPage(items=[ChargerOut.of(view) for view in items], next_cursor=following)


def _storable(text: str) -> str:
    """Postgres's text knows no NUL: nothing that contains one can be found."""
    return text.replace("\0", "\ufffd")


@router.get("/{charger_id:path}/deviations", dependencies=[viewer])
async def list_deviations(api: Deps, charger_id: ChargerId) -> Deviations:
    """Where the charger departs from the protocol (repaired on the way in), the most frequent first."""
    async with api.engine.connect() as db:
        if not await views.charger_exists(db, usable(charger_id)):
            raise unknown(charger_id)
        found = await logs.list_deviations(db, charger_id)
    return Deviations(items=[DeviationOut.model_validate(view) for view in found])


@router.get("/{charger_id:path}", dependencies=[viewer])
async def get_charger(api: Deps, charger_id: ChargerId) -> ChargerOut:
    async with api.engine.connect() as db:
        view = await views.get_charger(db, usable(charger_id))
    if view is None:
        raise unknown(charger_id)
    return ChargerOut.of(view)


@router.put("/{charger_id:path}", dependencies=[operator], responses={201: {"model": ChargerOut}})
async def register_charger(
    api: Deps, charger_id: ChargerId, settings: NewCharger, response: Response, tasks: BackgroundTasks
) -> ChargerOut:
    """Register a charger ahead of time, or set a known one's settings; what is left out stays as it is.

    Without `enrollment` it is Accepted.
    """
    if not charger_id or not charger_id.isprintable():
        raise Problem(422, "invalid-request", "A charger's id is made of printable characters.")
    columns = {"enrollment": settings.enrollment, **_columns(settings)}
    async with api.engine.begin() as db:
        before = await views.enrollment(db, charger_id)
        new = await admin.register_charger(db, charger_id, columns)
        view = await views.get_charger(db, charger_id)
    assert view is not None
    _tell(api, tasks, view, before)
    response.status_code = 201 if new else 200
    return ChargerOut.of(view)


@router.patch("/{charger_id:path}", dependencies=[operator])
async def change_charger(
    api: Deps, charger_id: ChargerId, settings: ChargerSettings, tasks: BackgroundTasks
) -> ChargerOut:
    """Change what is named.

    A connected charger that becomes Accepted is asked to boot anew, so that it need not wait for its retry interval;
    the connection of one that becomes Rejected or Pending ends. A new password or security profile counts from the
    next connection on; the open one stays.
    """
    async with api.engine.begin() as db:
        before = await views.enrollment(db, usable(charger_id))
        await admin.change_charger(db, usable(charger_id), _columns(settings))
        view = await views.get_charger(db, charger_id)
    assert view is not None
    _tell(api, tasks, view, before)
    return ChargerOut.of(view)


def _tell(api: Api, tasks: BackgroundTasks, view: views.ChargerView, before: str | None) -> None:
    if view.state.online and before not in {None, view.charger.enrollment}:
        tasks.add_task(enrollment_changed, api, view.id, view.charger.enrollment)


@router.delete("/{charger_id:path}", status_code=204, dependencies=[operator])
async def delete_charger(api: Deps, charger_id: ChargerId) -> None:
    """Forget a charger, its log and its events. Its transactions stay.

    409 while it is connected, charging or has events the broker has not taken.
    """
    async with api.engine.begin() as db:
        await admin.delete_charger(db, usable(charger_id))
