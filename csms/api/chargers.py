"""Chargers: list, register, change, forget; how they depart from the protocol."""

from typing import Annotated, Any, Literal

from fastapi import BackgroundTasks, Path, Query, Response
from pydantic import SecretStr

from csms.api import pages
from csms.api.charger_models import (
    ChargerOut,
    ChargerPage,
    ChargerSettings,
    DeviationOut,
    Deviations,
    NewCharger,
)
from csms.api.security import Context, Operator, guarded_router, viewer
from csms.core.passwords import hash_password
from csms.core.text import storable
from csms.db import charger_views, logs
from csms.service import chargers as service
from csms.service import cursors
from csms.service.chargers import known
from csms.service.enrollment import announce_enrollment

ChargerId = Annotated[str, Path(description="The charge point's identity", max_length=255)]
router = guarded_router(prefix="/chargers", tags=["chargers"])


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
    context: Context,
    online: bool | None = None,
    enrollment: Literal["Accepted", "Pending", "Rejected"] | None = None,
    q: Annotated[str | None, Query(max_length=100, description="A part of the id or display name")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    cursor: pages.Cursor = None,
) -> ChargerPage:
    after = cursors.decode(cursor, tuple[str])
    async with context.engine.connect() as db:
        found = await charger_views.list_chargers(
            db,
            after_id=storable(after[0]) if after else "",
            limit=limit + 1,
            online=online,
            enrollment=enrollment,
            containing=storable(q) if q else None,
        )
    items, following = cursors.cut(found, limit, lambda view: (view.id,))
    return ChargerPage(items=[ChargerOut.of(view) for view in items], next_cursor=following)


@router.get("/{charger_id:segment}/deviations", dependencies=[viewer])
async def list_deviations(context: Context, charger_id: ChargerId) -> Deviations:
    """Where the charger departs from the protocol (repaired on the way in), the most frequent first."""
    await known(context, charger_id)
    async with context.engine.connect() as db:
        found = await logs.list_deviations(db, charger_id)
    return Deviations(items=[DeviationOut.model_validate(view) for view in found])


@router.get("/{charger_id:segment}", dependencies=[viewer])
async def get_charger(context: Context, charger_id: ChargerId) -> ChargerOut:
    async with context.engine.connect() as db:
        return ChargerOut.of(await service.view_of(db, charger_id))


@router.put("/{charger_id:segment}", responses={201: {"model": ChargerOut}})
async def register_charger(
    context: Context,
    who: Operator,
    charger_id: ChargerId,
    settings: NewCharger,
    response: Response,
    tasks: BackgroundTasks,
) -> ChargerOut:
    """Register a charger ahead of time, or set a known one's settings; what is left out stays as it is.

    Without `enrollment` it is Accepted. Only an administrator can lower a security profile.
    """
    columns = {"enrollment": settings.enrollment, **_columns(settings)}
    view, new, announce = await service.register(context, who, charger_id, columns)
    if announce:
        tasks.add_task(announce_enrollment, context, view.id, view.charger.enrollment)
    response.status_code = 201 if new else 200
    return ChargerOut.of(view)


@router.patch("/{charger_id:segment}")
async def change_charger(
    context: Context, who: Operator, charger_id: ChargerId, settings: ChargerSettings, tasks: BackgroundTasks
) -> ChargerOut:
    """Change what is named. Only an administrator can lower a security profile.

    A connected charger that becomes Accepted is asked to boot anew, so that it need not wait for its retry interval;
    the connection of one that becomes Rejected or Pending ends. A new password or security profile counts from the
    next connection on; the open one stays.
    """
    view, announce = await service.change(context, who, charger_id, _columns(settings))
    if announce:
        tasks.add_task(announce_enrollment, context, view.id, view.charger.enrollment)
    return ChargerOut.of(view)


@router.delete("/{charger_id:segment}", status_code=204)
async def delete_charger(context: Context, who: Operator, charger_id: ChargerId) -> None:
    """Forget a charger, its log and its events. Its transactions stay.

    One that must reach a security profile is deleted by an administrator only. 409 while it is connected, charging or has events the broker has not taken.
    """
    await service.delete(context, who, charger_id)
