"""Tariffs with their versions, what a session would cost by them, and groups of chargers."""

from typing import Annotated

from fastapi import Path, Query, Response
from msgspec.structs import asdict

from csms.api import pages
from csms.api.security import Context, administrator, guarded_router, viewer
from csms.api.tags import nameable, named
from csms.api.tariff_models import (
    GroupIn,
    GroupOut,
    Groups,
    PriceIn,
    PriceOut,
    TariffIn,
    TariffPage,
    TariffTerms,
    TariffVersions,
)
from csms.api.transaction_models import CostOut, TariffOut
from csms.core.pricing import duration_s, session_cost
from csms.core.tariffs import Tariff, tariff_problems, zone_exists
from csms.core.text import storable
from csms.db import tariffs
from csms.service import cursors
from csms.service.problems import Problem

router = guarded_router(tags=["tariffs"])
_TARIFF = Annotated[str, Path(max_length=255)]
_GROUP = Annotated[str, Path(max_length=255)]


def _in_order(tariff: Tariff) -> Tariff:
    """The tariff, if nothing is wrong with its terms. Raises Problem 422 with all that is."""
    wrong = tariff_problems(tariff)
    if wrong:
        raise _wrong([(fault.pointer, fault.detail) for fault in wrong])
    return tariff


def _wrong(found: list[tuple[str, str]]) -> Problem:
    pointer, detail = found[0]
    errors = [{"in": "body", "pointer": where, "detail": why} for where, why in found]
    return Problem(422, "invalid-request", f"{pointer}: {detail}", errors=errors)


@router.get("/tariffs", dependencies=[viewer])
async def list_tariffs(
    context: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: pages.Cursor = None
) -> TariffPage:
    after = cursors.decode(cursor, tuple[str])
    async with context.engine.connect() as db:
        found = await tariffs.list_tariffs(db, after_id=storable(after[0]) if after else "", limit=limit + 1)
    items, following = cursors.cut(found, limit, lambda view: (view.tariff.id,))
    return TariffPage(items=[TariffOut.of(view) for view in items], next_cursor=following)


async def _found(context: Context, tariff_id: str, version: int | None = None) -> tariffs.TariffView:
    async with context.engine.connect() as db:
        view = await tariffs.get_tariff(db, named(tariff_id, "tariff"), version)
    if view is None:
        which = f"tariff {tariff_id!r}" if version is None else f"version {version} of tariff {tariff_id!r}"
        raise Problem(404, "not-found", f"There is no {which}.")
    return view


@router.get("/tariffs/{tariff_id:segment}/versions", dependencies=[viewer])
async def list_versions(context: Context, tariff_id: _TARIFF) -> TariffVersions:
    """The newest first. Those of a deleted tariff stay."""
    async with context.engine.connect() as db:
        found = await tariffs.versions(db, named(tariff_id, "tariff"))
    if not found:
        return TariffVersions(items=[TariffOut.of(await _found(context, tariff_id))])
    return TariffVersions(items=[TariffOut.of(view) for view in found])


@router.post("/tariffs/{tariff_id:segment}/price", dependencies=[viewer])
async def price(context: Context, tariff_id: _TARIFF, session: PriceIn) -> PriceOut:
    """What a session would cost. Nothing is stored."""
    tariff = (await _found(context, tariff_id)).tariff
    zone = tariff.time_zone or session.time_zone or "UTC"
    if not zone_exists(zone):
        raise _wrong([("/timeZone", f"{zone!r} is no IANA time zone, such as Europe/Vienna")])
    tariff = Tariff(**{**asdict(tariff), "time_zone": zone})
    try:
        timeline = session.timeline(tariff)
    except (ValueError, OverflowError) as error:
        raise _wrong([("/end", str(error))]) from None
    seconds = duration_s(timeline.started_at, timeline.ended_at)
    return PriceOut(
        tariff_id=tariff.id,
        version=tariff.version,
        start=timeline.started_at,
        end=timeline.ended_at,
        time_zone=zone,
        duration_s=int(seconds),
        energy_kwh=session.energy_kwh,
        cost=CostOut.of(session_cost(tariff, timeline.energy_wh, seconds, timeline)),
    )


@router.get("/tariffs/{tariff_id:segment}", dependencies=[viewer])
async def get_tariff(
    context: Context, tariff_id: _TARIFF, version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> TariffOut:
    return TariffOut.of(await _found(context, tariff_id, version))


@router.put(
    "/tariffs/{tariff_id:segment}", dependencies=[administrator], responses={201: {"model": TariffOut}}
)
async def put_tariff(context: Context, tariff_id: _TARIFF, tariff: TariffIn, response: Response) -> TariffOut:
    """Make or replace a tariff. A change makes a new version; transactions keep the prices they started under.

    The tariff `default` comes before the settings' one for whatever has no other.
    """
    terms = Tariff(id=nameable(tariff_id, "tariff id", 64), **tariff.terms(all_of_them=True))
    async with context.engine.begin() as db:
        _, new = await tariffs.put_tariff(db, _in_order(terms))
    response.status_code = 201 if new else 200
    return TariffOut.of(await _found(context, tariff_id))


@router.patch("/tariffs/{tariff_id:segment}", dependencies=[administrator])
async def change_tariff(context: Context, tariff_id: _TARIFF, tariff: TariffTerms) -> TariffOut:
    """Change what is named; bands are one thing."""
    async with context.engine.begin() as db:
        known = await tariffs.lock_tariff(db, named(tariff_id, "tariff"))
        terms = {**asdict(known), **tariff.terms(all_of_them=False)}
        await tariffs.put_tariff(db, _in_order(Tariff(**terms)))
    return TariffOut.of(await _found(context, tariff_id))


@router.delete("/tariffs/{tariff_id:segment}", status_code=204, dependencies=[administrator])
async def delete_tariff(context: Context, tariff_id: _TARIFF) -> None:
    """409 while a charger, a group or a tag is priced by it. Its versions stay readable."""
    async with context.engine.begin() as db:
        await tariffs.delete_tariff(db, named(tariff_id, "tariff"))


# --- groups ----------------------------------------------------------------------------------------------


@router.get("/groups", dependencies=[viewer])
async def list_groups(context: Context) -> Groups:
    """Groups of chargers that are priced alike."""
    async with context.engine.connect() as db:
        return Groups(items=[GroupOut.model_validate(group) for group in await tariffs.list_groups(db)])


@router.get("/groups/{group_id:segment}", dependencies=[viewer])
async def get_group(context: Context, group_id: _GROUP) -> GroupOut:
    async with context.engine.connect() as db:
        return GroupOut.model_validate(await tariffs.get_group(db, named(group_id, "group")))


@router.put("/groups/{group_id:segment}", dependencies=[administrator], responses={201: {"model": GroupOut}})
async def put_group(context: Context, group_id: _GROUP, group: GroupIn, response: Response) -> GroupOut:
    """Make a group or change its tariff. Chargers join it by their `groupId`."""
    async with context.engine.begin() as db:
        new = await tariffs.put_group(db, nameable(group_id, "group id", 64), group.tariff_id)
        made = await tariffs.get_group(db, group_id)
    response.status_code = 201 if new else 200
    return GroupOut.model_validate(made)


@router.delete("/groups/{group_id:segment}", status_code=204, dependencies=[administrator])
async def delete_group(context: Context, group_id: _GROUP) -> None:
    """409 while chargers are in it."""
    async with context.engine.begin() as db:
        await tariffs.delete_group(db, named(group_id, "group"))
