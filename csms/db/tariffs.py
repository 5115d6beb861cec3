"""Tariffs with all their versions, and groups of chargers that share a tariff."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.tariffs import Tariff
from csms.db.admin import Conflict, Missing, lock_referenced
from csms.db.rows import all_rows, all_structs, first_row
from csms.db.tables import charger_groups, chargers, tariff_versions, tariffs


class TariffView(Struct, frozen=True, kw_only=True):
    """`created_at`: of this version, or of the tariff where it is the current one."""

    tariff: Tariff
    created_at: datetime


class ChargerGroup(Struct, frozen=True, kw_only=True):
    """A group of chargers that share a tariff; `chargers` is their number."""

    id: str
    tariff_id: str | None
    chargers: int
    created_at: datetime


# --- tariffs ---------------------------------------------------------------------------------------------


def _view(row: Mapping[Any, Any]) -> TariffView:
    return TariffView(tariff=msgspec.convert(row["terms"], Tariff), created_at=row["created_at"])


async def list_tariffs(db: AsyncConnection, *, after_id: str = "", limit: int = 100) -> list[TariffView]:
    query = select(tariffs).where(tariffs.c.id > after_id).order_by(tariffs.c.id).limit(limit)
    return [_view(row) for row in await all_rows(db, query)]


async def get_tariff(db: AsyncConnection, tariff_id: str, version: int | None = None) -> TariffView | None:
    """A tariff as it is now, or in one of its versions."""
    row = await first_row(db, select(tariffs).where(tariffs.c.id == tariff_id))
    if version is None or (row is not None and row["version"] == version):
        return None if row is None else _view(row)
    return next((v for v in await versions(db, tariff_id) if v.tariff.version == version), None)


async def versions(db: AsyncConnection, tariff_id: str) -> list[TariffView]:
    """All versions, newest first; also those of a deleted tariff."""
    query = (
        select(tariff_versions)
        .where(tariff_versions.c.tariff_id == tariff_id)
        .order_by(tariff_versions.c.version.desc())
    )
    return [_view(row) for row in await all_rows(db, query)]


async def put_tariff(db: AsyncConnection, tariff: Tariff) -> tuple[Tariff, bool]:
    """Create a tariff or replace its terms, as a new version if they differ. Returns it, and whether it is new.

    Running transactions keep the terms they started under.
    """
    # A tariff that was deleted continues its numbers: bills name a version, which must keep its meaning.
    newest = await db.scalar(
        select(func.max(tariff_versions.c.version)).where(tariff_versions.c.tariff_id == tariff.id)
    )
    first = msgspec.structs.replace(tariff, version=(newest or 0) + 1)
    made = await db.scalar(
        upsert(tariffs)
        .values(id=tariff.id, version=first.version, terms=msgspec.to_builtins(first))
        .on_conflict_do_nothing()
        .returning(tariffs.c.id)
    )
    if made is not None:
        await _keep(db, first)
        return first, True
    known = await _locked(db, tariff.id)
    if msgspec.structs.replace(tariff, version=known.version) == known:
        return known, False
    changed = msgspec.structs.replace(tariff, version=known.version + 1)
    await db.execute(
        update(tariffs)
        .where(tariffs.c.id == tariff.id)
        .values(version=changed.version, terms=msgspec.to_builtins(changed))
    )
    await _keep(db, known)  # a node of an older release may have stored it without its version
    await _keep(db, changed)
    return changed, False


async def lock_tariff(db: AsyncConnection, tariff_id: str) -> Tariff:
    """Lock a tariff until the end of the database transaction. Raises Missing."""
    try:
        return await _locked(db, tariff_id)
    except Conflict:
        raise Missing(f"There is no tariff {tariff_id!r}.") from None


async def _locked(db: AsyncConnection, tariff_id: str) -> Tariff:
    query = select(tariffs).where(tariffs.c.id == tariff_id).with_for_update()
    row = await first_row(db, query)
    if row is None:
        raise Conflict(f"Tariff {tariff_id!r} was deleted just now; try again.")
    return _view(row).tariff


async def _keep(db: AsyncConnection, tariff: Tariff) -> None:
    await db.execute(
        upsert(tariff_versions)
        .values(tariff_id=tariff.id, version=tariff.version, terms=msgspec.to_builtins(tariff))
        .on_conflict_do_nothing()
    )


async def delete_tariff(db: AsyncConnection, tariff_id: str) -> None:
    """Delete a tariff but not its versions. Raises Missing, and Conflict while a charger, group or tag has it."""
    try:
        async with db.begin_nested():
            gone = await db.execute(delete(tariffs).where(tariffs.c.id == tariff_id))
    except IntegrityError:
        raise Conflict(
            f"Tariff {tariff_id!r} is in use; give its chargers, groups and tags another one first."
        ) from None
    if not gone.rowcount:
        raise Missing(f"There is no tariff {tariff_id!r}.")


# --- groups ----------------------------------------------------------------------------------------------


async def list_groups(db: AsyncConnection, *, only: Sequence[str] | None = None) -> list[ChargerGroup]:
    counted = select(func.count()).where(chargers.c.group_id == charger_groups.c.id).scalar_subquery()
    query = select(charger_groups, counted.label("chargers")).order_by(charger_groups.c.id)
    if only is not None:
        query = query.where(charger_groups.c.id.in_(only))
    return await all_structs(db, ChargerGroup, query)


async def get_group(db: AsyncConnection, group_id: str) -> ChargerGroup:
    """Raises Missing."""
    found = await list_groups(db, only=[group_id])
    if not found:
        raise Missing(f"There is no group {group_id!r}.")
    return found[0]


async def put_group(db: AsyncConnection, group_id: str, tariff_id: str | None) -> bool:
    """Create a group, or change its tariff. True: it is new. Raises Conflict when there is no such tariff."""
    await lock_referenced(db, {"tariff_id": tariff_id})
    made = await db.scalar(
        upsert(charger_groups)
        .values(id=group_id, tariff_id=tariff_id)
        .on_conflict_do_nothing()
        .returning(charger_groups.c.id)
    )
    if made is None:
        await db.execute(
            update(charger_groups).where(charger_groups.c.id == group_id).values(tariff_id=tariff_id)
        )
    return made is not None


async def delete_group(db: AsyncConnection, group_id: str) -> None:
    """Raises Missing, and Conflict while chargers are in it."""
    try:
        async with db.begin_nested():
            gone = await db.execute(delete(charger_groups).where(charger_groups.c.id == group_id))
    except IntegrityError:
        raise Conflict(f"There are chargers in group {group_id!r}; take them out first.") from None
    if not gone.rowcount:
        raise Missing(f"There is no group {group_id!r}.")
